"""Wanda: weight magnitude times the norm of the input it multiplies."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from mwanda.criteria.base import ComparisonGroup
from mwanda.statistics import LanguageStatistics, Needs, pooled_norm


@dataclass(frozen=True)
class Wanda:
    """`S_ij = |W_ij| · ‖X_j‖₂` (Sun et al., ICLR 2024, eq. 1), compared over an output row."""

    needs: ClassVar[Needs] = "norms"
    group: ClassVar[ComparisonGroup] = "row"

    def score(self, weight: Float[Tensor, "out in"], statistics: LanguageStatistics | None) -> Float[Tensor, "out in"]:
        """Return Wanda's scores from the norm pooled over all languages."""
        assert statistics is not None
        return weight.abs().float().mul_(pooled_norm(statistics))
