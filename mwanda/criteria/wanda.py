"""Wanda: weight magnitude times the norm of the input it multiplies."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from mwanda.criteria.base import ColumnWeighted
from mwanda.patterns.base import ComparisonGroup
from mwanda.statistics import LanguageStatistics, Needs, pooled_norm


@dataclass(frozen=True)
class Wanda(ColumnWeighted):
    """`S_ij = |W_ij| · ‖X_j‖₂` (Sun et al., ICLR 2024, eq. 1), compared over an output row."""

    needs: ClassVar[Needs] = Needs.NORMS
    group: ClassVar[ComparisonGroup] = "row"

    def column_weights(self, statistics: LanguageStatistics) -> Float[Tensor, " in"]:
        """Return `‖X_j‖₂`, pooled over all languages."""
        return pooled_norm(statistics)
