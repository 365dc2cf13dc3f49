"""SparseGPT: prunes weights by the error they leave after the others have been adjusted, and adjusts them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mwanda.kernels.columnwise import adjust, lowest_scores
from mwanda.patterns.base import ComparisonGroup
from mwanda.solvers.base import Budget, Layer, Match, prune_lowest, without_further_zeros
from mwanda.solvers.gram import cross_moment_of, gram_of, regularised, regularised_cross, with_active_inputs
from mwanda.statistics import Needs


ColumnOrder = Literal["given", "loss"]


@dataclass(frozen=True)
class SparseGPT:
    """Scores `w_ij² / [U_jj]²` with `UᵀU = H⁻¹` and `H` the regularised Gram matrix (Frantar & Alistarh, ICML 2023).

    Inputs are walked through in blocks of columns. In each block the lowest scores of all rows are pruned (or the
    lowest of each N:M cell); the error that each leaves is spread over the columns that are still to come, which is
    what optimal brain surgery prescribes when the columns before are settled.

    Args:
        damping: λ of `regularised`.
        columns: inputs decided together.
        shrinkage: α of `regularised`.
        column_order: `given`, or `loss`: within each block of columns, and block by block, those with the larger loss
            come first, as the error of an early column has more columns left to be spread over (ROSE, Su & Wang,
            arXiv 2603.05878). A column's loss is the sum of its scores among the lowest of the whole matrix. Under
            N:M whole cells are reordered.
        match: whose outputs the adjusted weights are fitted to.
    """

    damping: Annotated[float, Gt(0)] = 0.01
    columns: Annotated[int, Gt(0)] = 128
    shrinkage: Annotated[float, Ge(0), Le(1)] = 0.0
    column_order: ColumnOrder = "given"
    match: Match = "layer"
    takes_scores: ClassVar[bool] = False
    group: ClassVar[ComparisonGroup | None] = "matrix"

    @property
    def needs(self) -> Needs:
        """Second moments, also those with the dense model's inputs when its outputs are matched."""
        return Needs.CROSS_MOMENTS if self.match == "dense" else Needs.SECOND_MOMENTS

    def scores(self, weight: Float[Tensor, "out in"], gram: Float[Tensor, "in in"]) -> Float[Tensor, "out in"]:
        """Return the scores of all weights as they are before any is adjusted."""
        return (weight.float() * _scale(gram, inverse_factor(self.hessian(gram)))).square()

    def hessian(self, gram: Float[Tensor, "in in"]) -> Float[Tensor, "in in"]:
        """Return H in float64; an input that is never active gets a curvature of one."""
        return with_active_inputs(regularised(gram.double(), self.shrinkage, self.damping), gram.diagonal() == 0)

    def solve(self, layer: Layer) -> Float[Tensor, "out in"]:
        """Return the adjusted weights in float32."""
        gram, cell = gram_of(layer.statistics), layer.budget.cell
        values = layer.weight.to(torch.float32, copy=True) if self.match == "layer" else self._aim(layer, gram)
        width = -(-self.columns // cell) * cell if cell else self.columns
        blocks = list(torch.arange(values.shape[1], device=values.device).split(width))
        if self.column_order == "given":
            sizes = [len(block) for block in blocks]
            factor = layer.shared.of(gram, self, lambda: inverse_factor(self.hessian(gram)))
            return self._adjust(values, layer.weight == 0, gram, factor, layer.budget, sizes)
        scores = self.scores(values, gram)
        pruned = prune_lowest(scores, layer.weight == 0, layer.budget, layer.budget.prune_per_group)
        blocks = by_loss((scores * pruned).sum(dim=0), blocks, cell or 1)
        order, sizes = torch.cat(blocks), [len(block) for block in blocks]
        adjusted, gram = torch.empty_like(values), gram[order][:, order]
        factor = inverse_factor(self.hessian(gram))
        adjusted[:, order] = self._adjust(
            values[:, order], (layer.weight == 0)[:, order], gram, factor, layer.budget, sizes
        )
        return adjusted

    def _aim(self, layer: Layer, gram: Float[Tensor, "in in"]) -> Float[Tensor, "out in"]:
        """Return the weights `W C H⁻¹` that come nearest to the dense model's outputs when none is pruned."""
        silent = gram.diagonal() == 0
        cross = cross_moment_of(layer.statistics).double()
        cross = with_active_inputs(regularised_cross(cross, gram.double(), self.shrinkage, self.damping), silent)
        factor = torch.linalg.cholesky(self.hessian(gram))
        return torch.cholesky_solve((layer.weight.double() @ cross).T, factor).T.float().contiguous()

    def _adjust(
        self,
        values: Float[Tensor, "out in"],
        zeros: Bool[Tensor, "out in"],
        gram: Float[Tensor, "in in"],
        factor: Float[Tensor, "in in"],
        budget: Budget,
        sizes: Sequence[int],
    ) -> Float[Tensor, "out in"]:
        """Prune and adjust `values` in place, block of columns by block, and return them."""
        cell, scale = budget.cell, _scale(gram, factor)
        left, removed = budget.planned, zeros.clone()
        # Of all blocks at once, as a device is waited for.
        already = [] if cell else torch.stack([part.sum() for part in zeros.split(list(sizes), dim=1)]).tolist()
        first = 0
        for number, size in enumerate(sizes):
            last = first + size
            block, gone = values[:, first:last], zeros[:, first:last].contiguous()
            if cell is None:
                count = _share(left, size, values.shape[1] - first, already[number:])
                # All rows are one group: their values side by side.
                repeated = scale[first:last].repeat(len(values))
                gone = gone | lowest_scores(block.reshape(1, -1), repeated, gone.view(1, -1), count).view(gone.shape)
                left -= count
            else:
                gone = gone.clone()
            own = factor[first:last, first:last]
            errors = adjust(block, gone, own, scale[first:last], cell, budget.prune_per_group)
            values[:, last:].addmm_(errors, factor[first:last, last:], alpha=-1)  # in place: no second matrix as large
            removed[:, first:last] = gone
            first = last
        return without_further_zeros(values, removed)


def by_loss(
    losses: Float[Tensor, " in"], blocks: Sequence[Int[Tensor, " size"]], cell: int
) -> list[Int[Tensor, " size"]]:
    """Return the columns of each block, and the blocks, with the largest loss first; cells of columns stay together."""
    ordered = []
    for block in blocks:
        cells = block.view(-1, cell)
        ordered.append(cells[losses[cells].sum(dim=1).argsort(descending=True, stable=True)].flatten())
    totals = torch.stack([losses[block].sum() for block in ordered])
    return [ordered[place] for place in totals.argsort(descending=True, stable=True).tolist()]


def inverse_factor(hessian: Float[Tensor, "in in"]) -> Float[Tensor, "in in"]:
    """Return the upper triangular U with `UᵀU = H⁻¹`, in float32.

    With J the reversal of the order, `J H J = L Lᵀ` gives `H = A Aᵀ` for the upper triangular `A = J L J`, and
    `U = A⁻¹`: one factorisation and one triangular solve in place of an inverse between two factorisations.
    """
    upper: Tensor = torch.linalg.cholesky(hessian.flip(0, 1)).flip(0, 1)
    identity = torch.eye(len(hessian), dtype=hessian.dtype, device=hessian.device)
    factor: Tensor = torch.linalg.solve_triangular(upper, identity, upper=True)
    return factor.float()


def _scale(gram: Float[Tensor, "in in"], factor: Float[Tensor, "in in"]) -> Float[Tensor, " in"]:
    """Return `1 / U_jj`, or zero for an input that is never active: its weights are pruned first."""
    active: Tensor = gram.diagonal() > 0
    scale: Tensor = active / factor.diagonal()
    return scale


def _share(left: int, width: int, remaining: int, zeros: Sequence[int]) -> int:
    """Return how many of the `left` weights to remove fall to the next `width` of the `remaining` columns.

    `zeros` are there already, in these columns and in the blocks behind them.
    """
    here, later = zeros[0], sum(zeros[1:])
    return min(max(left * width // remaining, here), left - later)
