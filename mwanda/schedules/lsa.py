"""LSA: sparsity by the linear reconstruction error of each block after a trial pruning; a small error keeps more."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Lt
from jaxtyping import Float
from torch import Tensor

from mwanda.kernels.lowest import lowest
from mwanda.schedules.base import SIGNAL_FRACTION, BlockMatrix, Level, Looks, SignalFraction, project, spread
from mwanda.statistics import Needs


@dataclass(frozen=True)
class LSA:
    """Layer-wise sparsity allocation by the least linear reconstruction error (Yang et al., ICLR 2026), our reading.

    `E_k = Σ_m ‖W_m X_mᵀ − (M_m ⊙ W_m) X_mᵀ‖²` over the block's matrices, with the masks `M_m` that remove `removed` of
    each row at the least error that a greedy search finds; importance `1 − E_k / Σ_k E_k`. As published, a large error
    is read as redundancy; `protect=large` turns that round.

    Args:
        width: β; sparsities spread over `[S − β, S + β]` before the budget is met.
        removed: share of each row that is removed in the trial.
        steps: in which the search removes them; more of them give a lower error and take longer.
        protect: whether blocks with a `small` or a `large` error keep more.
        level: see Schedule.
        signal_fraction: see Schedule.
    """

    width: Annotated[float, Ge(0)] = 0.1
    removed: Annotated[float, Gt(0), Lt(1)] = 0.5
    steps: Annotated[int, Gt(0)] = 4
    protect: Literal["small", "large"] = "small"
    level: Level = "block"
    signal_fraction: SignalFraction = SIGNAL_FRACTION
    needs: ClassVar[Needs] = Needs.SECOND_MOMENTS
    looks_at: ClassVar[Looks] = "inputs"

    def signal(self, matrices: Sequence[BlockMatrix]) -> Sequence[float]:
        """Return `−E_k`, which orders blocks as their importance does, or `E_k` with `protect=large`."""
        error = float(sum(self._error(matrix) for matrix in matrices))
        return (-error if self.protect == "small" else error,)

    def allocate(
        self, signals: Sequence[Sequence[float]], shares: Sequence[float], target: float, lower: Sequence[float]
    ) -> list[float]:
        """Return sparsities that fall with the importance."""
        return project(spread([signal for (signal,) in signals], self.width), shares, target, lower)

    def _error(self, matrix: BlockMatrix) -> Float[Tensor, ""]:
        assert matrix.statistics is not None
        assert matrix.statistics.second_moment is not None, "needs = Needs.SECOND_MOMENTS"
        return reconstruction_error(matrix.weight, matrix.statistics.second_moment, self.removed, self.steps)


def reconstruction_error(
    weight: Float[Tensor, "out in"], second_moment: Float[Tensor, "in in"], removed: float, steps: int
) -> Float[Tensor, ""]:
    """Return `Σ_rows r H rᵀ` of the part `r` of each row that a greedy search removes.

    In each step it removes the weights that add least to the error of the row, given those removed before:
    `2 w_j (r H)_j + w_j² H_jj`. With one step these are the lowest scores of Wanda.

    Args:
        weight: of one matrix.
        second_moment: `H = XᵀX` of its inputs.
        removed: share of each row to remove, rounded down to a whole number of weights.
        steps: in how many parts.
    """
    values, moment = weight.float(), second_moment.float()
    count = int(removed * values.shape[1])
    own = values.square() * moment.diagonal()
    gone = torch.zeros_like(values, dtype=torch.bool)
    through = torch.zeros_like(values)
    for step in range(1, steps + 1):
        added = (own + 2 * values * through).masked_fill_(gone, -torch.inf)
        gone = lowest(added, count * step // steps)
        through = (values * gone) @ moment
    return (values * gone * through).sum(dtype=torch.float64)
