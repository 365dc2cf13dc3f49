"""OWL: blocks with more outlying scores keep more."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor

from mwanda.schedules.base import SIGNAL_FRACTION, BlockMatrix, SignalFraction, project, spread
from mwanda.statistics import Needs, pooled_norm


@dataclass(frozen=True)
class OWL:
    """Outlier-weighed layerwise sparsity (Yin et al., ICML 2024).

    Args:
        outlier_threshold: M; a score is an outlier when it exceeds M times the mean of the block's scores.
        width: λ; sparsities spread over `[S − λ, S + λ]` before the budget is met.
        signal_fraction: see Schedule.
    """

    outlier_threshold: Annotated[float, Gt(0)] = 5.0
    width: Annotated[float, Ge(0)] = 0.08
    signal_fraction: SignalFraction = SIGNAL_FRACTION
    needs: ClassVar[Needs] = "norms"

    def signal(self, matrices: Sequence[BlockMatrix]) -> Sequence[float]:
        """Return `D_k`, the share of outliers among the block's Wanda scores."""
        return (outlier_ratio([_wanda_scores(matrix) for matrix in matrices], self.outlier_threshold),)

    def allocate(
        self, signals: Sequence[Sequence[float]], shares: Sequence[float], target: float, lower: Sequence[float]
    ) -> list[float]:
        """Return sparsities that fall with the share of outliers."""
        return project(spread([signal for (signal,) in signals], self.width), shares, target, lower)


def outlier_ratio(scores: Sequence[Float[Tensor, "out in"]], threshold: float) -> float:
    """Return the share of all scores that exceed `threshold` times their common mean."""
    count = sum(score.numel() for score in scores)
    mean = sum(float(score.double().sum()) for score in scores) / count
    return sum(int((score > threshold * mean).sum()) for score in scores) / count


def _wanda_scores(matrix: BlockMatrix) -> Float[Tensor, "out in"]:
    return matrix.weight.abs().float() * pooled_norm(matrix.statistics)
