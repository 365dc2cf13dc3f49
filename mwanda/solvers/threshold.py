"""The plain solver: a criterion's lowest scores are pruned, and nothing else is done."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from mwanda.patterns.base import ComparisonGroup
from mwanda.solvers.base import Layer
from mwanda.statistics import Needs


@dataclass(frozen=True)
class Threshold:
    """Prunes the lowest scores of each comparison group (Wanda, magnitude and their like)."""

    needs: ClassVar[Needs] = Needs.NOTHING
    takes_scores: ClassVar[bool] = True
    group: ClassVar[ComparisonGroup | None] = None

    def select(self, layer: Layer) -> Bool[Tensor, "out in"]:
        """Return the mask of the scores alone."""
        return layer.lowest_scores()
