"""M-Wanda: Wanda with language-aware activation statistics, in our reading of the paper (see docs/methods.md)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor

from mwanda.criteria.base import ColumnWeighted
from mwanda.patterns.base import ComparisonGroup
from mwanda.statistics import (
    LanguageStatistics,
    Needs,
    activation_probability,
    language_root_mean_square,
    pooled,
    pooled_norm,
)


@dataclass(frozen=True)
class LanguageAware:
    """The language-aware activation statistic that replaces the pooled norm `‖X_j‖₂` in Wanda's and RIA's scores.

    Args:
        variance_weight: λ, how much disagreement between languages raises a feature's importance.
        shared: `A_j`: `pooled` = `‖X_j‖₂ / √N`, or `mean` = the mean over languages of `a_lj`.
        disagreement: `V_j`: population `variance` or `standard_deviation` of `a_lj` over languages.
        normalised: take `V_j` from profiles scaled to one common norm, so that a language with louder activations
            does not decide alone.
        probability_exponent: β, the weight of the activation probability `P_j`, the mean over languages of `p_lj`.
    """

    variance_weight: Annotated[float, Ge(0)] = 0.5
    shared: Literal["pooled", "mean"] = "pooled"
    disagreement: Literal["variance", "standard_deviation"] = "variance"
    normalised: bool = False
    probability_exponent: Annotated[float, Ge(0)] = 0.0
    group: ClassVar[ComparisonGroup] = "row"

    @property
    def needs(self) -> Needs:
        """Sums of squares; counts of positive inputs too when β > 0."""
        return Needs.COUNTS if self.probability_exponent > 0 else Needs.NORMS

    def importance(self, statistics: LanguageStatistics) -> Float[Tensor, " in"]:
        """Return `√N · (A_j + λ·V_j) · P_j^β`, the factor that takes the place of Wanda's `‖X_j‖₂`.

        Languages without a token here (an expert need not meet every one) are left out of `A_j`, `V_j` and `P_j`.
        """
        importance = self._shared(statistics)
        if self.variance_weight > 0:
            scale = pooled(statistics, statistics.tokens).sqrt()
            importance = importance + self.variance_weight * scale * self._disagreement(statistics)
        if self.probability_exponent > 0:
            probability = _mean(activation_probability(statistics), statistics.votes)
            importance = importance * probability.pow(self.probability_exponent)
        return importance

    def _shared(self, statistics: LanguageStatistics) -> Float[Tensor, " in"]:
        if self.shared == "pooled":
            return pooled_norm(statistics)
        # √N · mean_l a_lj, written so that the factor is exactly one when there is one language.
        ratio = pooled(statistics, statistics.tokens) / statistics.tokens.clamp(min=1).double()
        return _mean((statistics.sum_squares * ratio[:, None]).sqrt(), statistics.votes).float()

    def _disagreement(self, statistics: LanguageStatistics) -> Float[Tensor, " in"]:
        profiles, weights = language_root_mean_square(statistics), statistics.votes
        if self.normalised:
            norms = torch.linalg.vector_norm(profiles, dim=1, keepdim=True)
            # In this order, as the common norm over that of a silent language would be infinite.
            profiles = profiles / norms.clamp(min=torch.finfo(norms.dtype).tiny) * _mean(norms, weights)
        variance = _mean((profiles - _mean(profiles, weights)).square(), weights)
        return variance if self.disagreement == "variance" else variance.sqrt()


@dataclass(frozen=True)
class MWanda(LanguageAware, ColumnWeighted):
    """`S_ij = |W_ij| · (A_j + λ·V_j) · P_j^β` (after Choenni & Titov, EMNLP 2025), compared over an output row.

    The knobs are those of LanguageAware. With λ = 0 and β = 0, or with one language and β = 0, the scores equal
    Wanda's bit for bit: everything is multiplied by the constant `√N`, which changes no ranking.
    """

    def column_weights(self, statistics: LanguageStatistics) -> Float[Tensor, " in"]:
        """Return the importance of each input."""
        return self.importance(statistics)


def _mean(values: Float[Tensor, "L in"], weights: Float[Tensor, " L"]) -> Float[Tensor, " in"]:
    return (values * weights[:, None]).sum(dim=0) / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
