"""Magnitude pruning, the baseline without calibration."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from mwanda.patterns.base import ComparisonGroup
from mwanda.statistics import LanguageStatistics, Needs


@dataclass(frozen=True)
class Magnitude:
    """`S_ij = |W_ij|` (Han et al. 2015), compared over the matrix as in the Wanda paper's baseline, or over a row."""

    group: ComparisonGroup = "matrix"
    needs: ClassVar[Needs] = Needs.NOTHING

    def score(self, weight: Float[Tensor, "out in"], statistics: LanguageStatistics | None) -> Float[Tensor, "out in"]:
        """Return the absolute weights."""
        return weight.abs().float()
