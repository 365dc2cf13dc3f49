"""SparseGPT: prunes weights by the error they leave after the others have been adjusted, and adjusts them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mwanda.kernels.columnwise import adjust, scores_of
from mwanda.kernels.lowest import lowest
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

    No inverse of H is made. With the triangular `A = U⁻¹`, so that `H = A Aᵀ`, the error of a row is
    `Σ_j ([(w − v) A]_j)²`, and column j makes up for what those before it have lost by
    `v_j = w_j + Σ_{k<j} (w_k − v_k) A_kj / A_jj` (linear feedback, which QuIP, Chee et al., NeurIPS 2023, shows to be
    the same as spreading errors, there for rounding). So the columns behind a block get what the block has lost by A,
    and the inverse of A, which spreads errors within a block, is that of the block alone.

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
        return (weight.float() * _scale(gram, feedback(self.hessian(gram), []))).square()

    def hessian(self, gram: Float[Tensor, "in in"]) -> Float[Tensor, "in in"]:
        """Return H in float64; an input that is never active gets a curvature of one."""
        return with_active_inputs(regularised(gram.double(), self.shrinkage, self.damping), gram.diagonal() == 0)

    def solve(self, layer: Layer) -> Float[Tensor, "out in"]:
        """Return the adjusted weights in float32."""
        gram, cell = gram_of(layer.statistics), layer.budget.cell
        values = self._aim(layer, gram)
        width = -(-self.columns // cell) * cell if cell else self.columns
        blocks = list(torch.arange(values.shape[1], device=values.device).split(width))
        if self.column_order == "given":
            sizes = [len(block) for block in blocks]
            how = self, tuple(sizes)
            factor = layer.shared.of(gram, how, lambda: feedback(self.hessian(gram), sizes))
            return self._adjust(values, layer.weight == 0, gram, factor, layer.budget, sizes)
        scores = self.scores(values, gram)
        pruned = prune_lowest(scores, layer.weight == 0, layer.budget, layer.budget.prune_per_group)
        blocks = by_loss((scores * pruned).sum(dim=0), blocks, cell or 1)
        order, sizes = torch.cat(blocks), [len(block) for block in blocks]
        adjusted, gram = torch.empty_like(values), gram[order][:, order]
        factor = feedback(self.hessian(gram), sizes)
        adjusted[:, order] = self._adjust(
            values[:, order], (layer.weight == 0)[:, order], gram, factor, layer.budget, sizes
        )
        return adjusted

    def _aim(self, layer: Layer, gram: Float[Tensor, "in in"]) -> Float[Tensor, "out in"]:
        """Return a copy of the weights, row by row; or `W C H⁻¹`, which unpruned come nearest to the dense outputs."""
        if self.match == "layer":
            return layer.weight.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        silent = gram.diagonal() == 0
        cross = cross_moment_of(layer.statistics).double()
        cross = with_active_inputs(regularised_cross(cross, gram.double(), self.shrinkage, self.damping), silent)
        factor = torch.linalg.cholesky(self.hessian(gram))
        return torch.cholesky_solve((layer.weight.double() @ cross).T, factor).T.float().contiguous()

    def _adjust(
        self,
        values: Float[Tensor, "out in"],
        removed: Bool[Tensor, "out in"],
        gram: Float[Tensor, "in in"],
        factor: Float[Tensor, "in in"],
        budget: Budget,
        sizes: Sequence[int],
    ) -> Float[Tensor, "out in"]:
        """Prune and adjust `values` in place, block of columns by block, and return them; add to what is `removed`."""
        cell, scale = budget.cell, _scale(gram, factor)
        left, given = budget.planned, values.clone()
        # Of all blocks at once, as a device is waited for.
        already = [] if cell else torch.stack([part.sum() for part in removed.split(list(sizes), dim=1)]).tolist()
        first = 0
        for number, size in enumerate(sizes):
            last = first + size
            block, gone = values[:, first:last], removed[:, first:last].contiguous()
            before, inverse = given[:, first:last], factor[first:last, first:last].triu(1)
            # The first of these columns make up for what is lost before the block, and the next ones for that.
            block.addmm_(block - before, inverse)
            if cell is None:
                count = _share(left, size, values.shape[1] - first, already[number:])
                scores = scores_of(block, scale[first:last], gone)
                gone |= lowest(scores.view(1, -1), count).view(gone.shape)  # all rows are one group
                left -= count
            adjust(block, gone, inverse, scale[first:last], cell, budget.prune_per_group)
            values[:, last:].addmm_(before - block, factor[first:last, last:])
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


def feedback(hessian: Float[Tensor, "in in"], sizes: Sequence[int]) -> Float[Tensor, "in in"]:
    """Return what the upper triangular A with `H = A Aᵀ` says of blocks of so many columns, in float32.

    On the diagonal stands `A_jj`, right of a block `Ã_kj = A_kj / A_jj`, and right of the diagonal within a block the
    inverse of the block of Ã: its row j spreads the weight of column j that is pruned over the others of the block.

    With J the reversal of the order, `J H J = L Lᵀ` gives `A = J L J`: one factorisation.
    """
    upper: Tensor = torch.linalg.cholesky(hessian.flip(0, 1)).flip(0, 1)
    diagonal = upper.diagonal().clone()
    upper /= diagonal
    blocks = torch.arange(sum(sizes)).split(list(sizes)) if sizes else ()
    for size in dict.fromkeys(sizes):
        alike = [slice(int(block[0]), int(block[0]) + size) for block in blocks if len(block) == size]
        identity = torch.eye(size, dtype=upper.dtype, device=upper.device)
        own = torch.stack([upper[block, block] for block in alike])
        inverses = torch.linalg.solve_triangular(own, identity, upper=True, unitriangular=True)
        for block, inverse in zip(alike, inverses, strict=True):
            upper[block, block] = inverse
    upper.diagonal().copy_(diagonal)
    return upper.float()


def _scale(gram: Float[Tensor, "in in"], factor: Float[Tensor, "in in"]) -> Float[Tensor, " in"]:
    """Return `A_jj`, or zero for an input that is never active: its weights are pruned first."""
    active: Tensor = gram.diagonal() > 0
    scale: Tensor = active * factor.diagonal()
    return scale


def _share(left: int, width: int, remaining: int, zeros: Sequence[int]) -> int:
    """Return how many of the `left` weights to remove fall to the next `width` of the `remaining` columns.

    `zeros` are there already, in these columns and in the blocks behind them.
    """
    here, later = zeros[0], sum(zeros[1:])
    return min(max(left * width // remaining, here), left - later)
