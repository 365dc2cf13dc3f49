"""M-RIA: RIA with M-Wanda's language-aware activation statistics in the place of the pooled norm."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor

from mwanda.criteria.mwanda import LanguageAware
from mwanda.criteria.ria import relative_importance
from mwanda.statistics import LanguageStatistics


@dataclass(frozen=True)
class MRIA(LanguageAware):
    """`S_ij = (|W_ij| / Σ_k|W_kj| + |W_ij| / Σ_k|W_ik|) · (√N · (A_j + λ·V_j) · P_j^β)^α`, over an output row.

    Args:
        variance_weight, shared, disagreement, normalised, probability_exponent: see LanguageAware.
        exponent: α of RIA, the weight of the activations.

    With λ = 0 and β = 0, or with one language and β = 0, the scores equal RIA's bit for bit.
    """

    exponent: Annotated[float, Ge(0)] = 0.5

    def score(self, weight: Float[Tensor, "out in"], statistics: LanguageStatistics | None) -> Float[Tensor, "out in"]:
        """Return the language-aware relative scores."""
        assert statistics is not None
        return relative_importance(weight) * self.importance(statistics).pow(self.exponent)
