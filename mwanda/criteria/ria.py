"""RIA: relative importance and activations."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor

from mwanda.patterns.base import ComparisonGroup
from mwanda.statistics import LanguageStatistics, Needs, pooled_norm


@dataclass(frozen=True)
class RIA:
    """`S_ij = (|W_ij| / Σ_k|W_kj| + |W_ij| / Σ_k|W_ik|) · ‖X_j‖₂^α` (Zhang et al., ICLR 2024), over an output row.

    Args:
        exponent: α, the weight of the activations.
    """

    exponent: Annotated[float, Ge(0)] = 0.5
    needs: ClassVar[Needs] = Needs.NORMS
    group: ClassVar[ComparisonGroup] = "row"

    def score(self, weight: Float[Tensor, "out in"], statistics: LanguageStatistics | None) -> Float[Tensor, "out in"]:
        """Return the relative importance of each weight in its row and column, times the activations."""
        assert statistics is not None
        return relative_importance(weight) * pooled_norm(statistics).pow(self.exponent)


def relative_importance(weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
    """Return `|W_ij| / Σ_k|W_kj| + |W_ij| / Σ_k|W_ik|`; a row or column of zeros has the importance zero, not 0/0."""
    magnitude = weight.abs().float()
    tiny = torch.finfo(torch.float32).tiny
    column = magnitude / magnitude.sum(dim=0, keepdim=True).clamp(min=tiny)
    row = magnitude / magnitude.sum(dim=1, keepdim=True).clamp(min=tiny)
    return column + row
