"""SparseGPT: prunes weights by the error they leave after the others have been adjusted, and adjusts them."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mwanda.criteria.base import ComparisonGroup
from mwanda.patterns.base import lowest
from mwanda.solvers.base import Layer, prune_lowest
from mwanda.solvers.gram import gram_of, regularised, with_active_inputs
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
    """

    damping: Annotated[float, Gt(0)] = 0.01
    columns: Annotated[int, Gt(0)] = 128
    shrinkage: Annotated[float, Ge(0), Le(1)] = 0.0
    column_order: ColumnOrder = "given"
    needs: ClassVar[Needs] = "second_moments"
    takes_scores: ClassVar[bool] = False
    group: ClassVar[ComparisonGroup | None] = "matrix"

    def scores(self, weight: Float[Tensor, "out in"], gram: Float[Tensor, "in in"]) -> Float[Tensor, "out in"]:
        """Return the scores of all weights as they are before any is adjusted."""
        hessian = self.hessian(gram)
        return (weight.float() * _scale(gram, inverse_factor(hessian))).square()

    def hessian(self, gram: Float[Tensor, "in in"]) -> Float[Tensor, "in in"]:
        """Return H in float64; an input that is never active gets a curvature of one."""
        return with_active_inputs(regularised(gram.double(), self.shrinkage, self.damping), gram.diagonal() == 0)

    def solve(self, layer: Layer) -> Float[Tensor, "out in"]:
        """Return the adjusted weights in float32."""
        weight, gram, cell = layer.weight.to(torch.float32, copy=True), gram_of(layer.statistics), layer.budget.cell
        width = -(-self.columns // cell) * cell if cell else self.columns
        if self.column_order == "given":
            sizes = _sizes(weight.shape[1], width)
            return self._walk(weight, gram, layer, sizes)
        losses = self._losses(weight, gram, layer)
        order, sizes = order_by_loss(losses, width, cell or 1)
        found = torch.empty_like(weight)
        found[:, order] = self._walk(weight[:, order], gram[order][:, order], layer, sizes)
        return found
