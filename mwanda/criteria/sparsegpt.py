"""SparseGPT: removes weights by the error they leave after the others have been adjusted, and adjusts them."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mwanda.kernels.lowest import lowest
from mwanda.patterns.base import ComparisonGroup
from mwanda.statistics import LanguageStatistics, Needs


@dataclass(frozen=True)
class SparseGPT:
    """`S_ij = W_ij² / [U_jj]²`, with `UᵀU = H⁻¹` (Cholesky) and `H = XᵀX + λ·mean(diag)·I` (Frantar & Alistarh 2023).

    Inputs are walked through from left to right in blocks of columns. In each block the lowest scores of all rows
    go (or the lowest of each N:M cell); the error that each removed weight leaves is spread over the columns to its
    right, which is what optimal brain surgery prescribes when the columns to the left are settled.

    Args:
        damping: λ, relative to the mean of the diagonal.
        columns: inputs decided together.
    """

    damping: Annotated[float, Gt(0)] = 0.01
    columns: Annotated[int, Gt(0)] = 128
    needs: ClassVar[Needs] = Needs.SECOND_MOMENTS
    group: ClassVar[ComparisonGroup] = "matrix"

    def score(self, weight: Float[Tensor, "out in"], statistics: LanguageStatistics | None) -> Float[Tensor, "out in"]:
        """Return the scores of all weights as they are before any is adjusted."""
        assert statistics is not None
        moment = _second_moment(statistics)
        return (weight.float() * _scale(moment, inverse_factor(moment, self.damping))).square()

    def reconstruct(
        self,
        weight: Float[Tensor, "out in"],
        statistics: LanguageStatistics,
        planned: int,
        cell: int | None,
        prune_per_group: int,
    ) -> Float[Tensor, "out in"]:
        """Return the adjusted weights with `planned` zeros, or with `prune_per_group` in each cell of inputs."""
        values, zeros = weight.to(torch.float32, copy=True), weight == 0
        moment = _second_moment(statistics)
        factor = inverse_factor(moment, self.damping)
        scale, columns = _scale(moment, factor), values.shape[1]
        width = -(-self.columns // cell) * cell if cell else self.columns
        left, already, removed = planned, zeros.sum(dim=0), zeros.clone()
        for first in range(0, columns, width):
            last = min(first + width, columns)
            gone = zeros[:, first:last].clone()
            if cell is None:
                count = _share(left, last - first, already[first:])
                # All rows are one group: their values side by side.
                block, repeated = values[:, first:last].reshape(1, -1), scale[first:last].repeat(len(values))
                gone |= _lowest_scores(block, repeated, gone.reshape(1, -1), count).view(gone.shape)
                left -= count
            errors = torch.zeros_like(values[:, first:last])
            for column in range(first, last):
                here = column - first
                if cell is not None and here % cell == 0:
                    inside = slice(column, column + cell)
                    part = gone[:, here : here + cell]
                    part |= _lowest_scores(values[:, inside], scale[inside], part, prune_per_group)
                errors[:, here] = values[:, column] * gone[:, here] / factor[column, column]
                values[:, column:last] -= errors[:, here, None] * factor[column, column:last]
                values[:, column].masked_fill_(gone[:, here], 0)
            values[:, last:] -= errors @ factor[first:last, last:]
            removed[:, first:last] = gone
        # An adjustment can cancel a kept weight exactly; it must not be counted among the removed.
        return values.masked_fill_((values == 0) & ~removed, torch.finfo(values.dtype).tiny)


def inverse_factor(second_moment: Float[Tensor, "in in"], damping: float) -> Float[Tensor, "in in"]:
    """Return the upper triangular U with `UᵀU = H⁻¹`; an input that is never active gets a curvature of one."""
    hessian = second_moment.double()
    diagonal = hessian.diagonal()
    dead = diagonal == 0
    hessian = hessian + torch.diag(damping * diagonal.mean() + dead.double())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.float()


def _second_moment(statistics: LanguageStatistics) -> Float[Tensor, "in in"]:
    assert statistics.second_moment is not None, "needs = Needs.SECOND_MOMENTS"
    return statistics.second_moment


def _scale(second_moment: Float[Tensor, "in in"], factor: Float[Tensor, "in in"]) -> Float[Tensor, " in"]:
    """Return `1 / U_jj`, or zero for an input that is never active: its weights go first."""
    active: Tensor = second_moment.diagonal() > 0
    scale: Tensor = active / factor.diagonal()
    return scale


def _lowest_scores(
    values: Float[Tensor, "groups size"], scale: Float[Tensor, " size"], zeros: Bool[Tensor, "groups size"], count: int
) -> Bool[Tensor, "groups size"]:
    """Mark the `count` lowest scores of each row; weights that are zero already come first."""
    return lowest((values * scale).square().masked_fill(zeros, -1), count)


def _share(left: int, width: int, zeros: Int[Tensor, " remaining"]) -> int:
    """Return how many of the `left` weights to remove fall to the next `width` columns, given those zero already."""
    here, later = int(zeros[:width].sum()), int(zeros[width:].sum())
    return min(max(left * width // zeros.numel(), here), left - later)
