"""OWL: blocks with more outlying scores keep more."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor

from mwanda.kernels.lowest import rows_at_once
from mwanda.schedules.base import SIGNAL_FRACTION, BlockMatrix, Level, Looks, SignalFraction, project, spread
from mwanda.statistics import Needs, pooled_norm


@dataclass(frozen=True)
class OWL:
    """Outlier-weighed layerwise sparsity (Yin et al., ICML 2024).

    Args:
        outlier_threshold: M; a score is an outlier when it exceeds M times the mean of the block's scores.
        width: λ; sparsities spread over `[S − λ, S + λ]` before the budget is met.
        level: see Schedule.
        signal_fraction: see Schedule.
    """

    outlier_threshold: Annotated[float, Gt(0)] = 5.0
    width: Annotated[float, Ge(0)] = 0.08
    level: Level = "block"
    signal_fraction: SignalFraction = SIGNAL_FRACTION
    needs: ClassVar[Needs] = Needs.NORMS
    looks_at: ClassVar[Looks] = "inputs"

    def signal(self, matrices: Sequence[BlockMatrix]) -> Sequence[float]:
        """Return `D_k`, the share of outliers among the block's Wanda scores."""
        return (outlier_ratio(partial(wanda_scores, matrices), self.outlier_threshold),)

    def allocate(
        self, signals: Sequence[Sequence[float]], shares: Sequence[float], target: float, lower: Sequence[float]
    ) -> list[float]:
        """Return sparsities that fall with the share of outliers."""
        return project(spread([signal for (signal,) in signals], self.width), shares, target, lower)


def outlier_ratio(scores: Callable[[], Iterable[Float[Tensor, "rows in"]]], threshold: float) -> float:
    """Return the share of all scores that exceed `threshold` times their common mean.

    Args:
        scores: makes the scores of a few rows at a time; called twice, for the mean and for the count.
        threshold: M.
    """
    # Tensors, not numbers: an accelerator is waited for once, at the end.
    sums = [(part.sum(dtype=torch.float64), part.numel()) for part in scores()]
    count = sum(size for _, size in sums)
    limit = threshold * torch.stack([total for total, _ in sums]).sum() / count
    return int(torch.stack([(part > limit).sum() for part in scores()]).sum()) / count


def wanda_scores(matrices: Sequence[BlockMatrix]) -> Iterator[Float[Tensor, "rows in"]]:
    """Yield the scores a few rows at a time, so that nothing of a block's size is made."""
    for matrix in matrices:
        assert matrix.statistics is not None
        norm = pooled_norm(matrix.statistics)
        for rows in matrix.weight.split(rows_at_once(matrix.weight)):
            yield rows.abs().float().mul_(norm)
