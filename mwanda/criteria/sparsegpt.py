"""SparseGPT as a criterion: the reconstruction error of pruning one weight when the others are adjusted."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt
from jaxtyping import Float
from torch import Tensor

from mwanda.patterns.base import ComparisonGroup
from mwanda.solvers import sparsegpt
from mwanda.solvers.gram import gram_of
from mwanda.statistics import LanguageStatistics, Needs


@dataclass(frozen=True)
class SparseGPT:
    """`S_ij = W_ij² / [U_jj]²`, with `UᵀU = H⁻¹` (Cholesky) and `H = XᵀX + λ·mean(diag)·I` (Frantar & Alistarh 2023).

    With the plain solver these are scored anew as the weights are adjusted, by `solvers.sparsegpt`: the method of the
    paper. Another solver starts from the scores as they are before any adjustment.

    Args:
        damping: λ, relative to the mean of the diagonal.
        columns: inputs decided together.
    """

    damping: Annotated[float, Gt(0)] = 0.01
    columns: Annotated[int, Gt(0)] = 128
    needs: ClassVar[Needs] = Needs.SECOND_MOMENTS
    group: ClassVar[ComparisonGroup] = "matrix"

    @property
    def solver(self) -> sparsegpt.SparseGPT:
        """The solver that adjusts the weights."""
        return sparsegpt.SparseGPT(self.damping, self.columns)

    def score(self, weight: Float[Tensor, "out in"], statistics: LanguageStatistics | None) -> Float[Tensor, "out in"]:
        """Return the scores of all weights as they are before any is adjusted."""
        return self.solver.scores(weight, gram_of(statistics))
