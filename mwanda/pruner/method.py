"""How a matrix is pruned: a criterion's scores, and the solver that makes a mask or new weights of them."""

from dataclasses import dataclass

from mwanda.criteria import Criterion
from mwanda.criteria.base import BringsSolver
from mwanda.patterns.base import ComparisonGroup
from mwanda.solvers import Solver, WeightSolver
from mwanda.solvers.threshold import Threshold
from mwanda.statistics import Needs


@dataclass(frozen=True)
class Method:
    """A criterion and a solver.

    Args:
        criterion: scores weights.
        solver: takes it from there.
    """

    criterion: Criterion
    solver: Solver

    @classmethod
    def of(cls, criterion: Criterion, solver: Solver | None = None) -> "Method":
        """Return the criterion with a solver: the plain one unless another is given, or the criterion brings its own.

        `criterion=sparsegpt` is the method of its paper that way, while another solver refines its scores' mask.
        """
        chosen = Threshold() if solver is None else solver
        if isinstance(chosen, Threshold) and isinstance(criterion, BringsSolver):
            chosen = criterion.solver
        return cls(criterion, chosen)

    @property
    def needs(self) -> Needs:
        """What both have to know of the calibration inputs."""
        return self.solver.needs | (self.criterion.needs if self.solver.takes_scores else Needs.NOTHING)

    @property
    def group(self) -> ComparisonGroup:
        """Weights that compete with each other under the unstructured pattern."""
        return self.solver.group or self.criterion.group

    @property
    def changes_weights(self) -> bool:
        """Whether kept weights are adjusted."""
        return isinstance(self.solver, WeightSolver)
