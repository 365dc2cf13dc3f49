"""How a matrix is pruned: a criterion's scores, and the solver that makes a mask or new weights of them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from mwanda.criteria import Criterion
from mwanda.criteria.base import BringsSolver
from mwanda.errors import ConfigurationError
from mwanda.models import Block
from mwanda.patterns.base import ComparisonGroup
from mwanda.solvers import Solver, WeightSolver
from mwanda.solvers.threshold import Threshold
from mwanda.statistics import Needs


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Method:
    """A criterion and a solver.

    Args:
        criterion: scores weights.
        solver: makes a mask or new weights of the scores.
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

    def tell(self) -> None:
        """Say so where the criterion has no part in the mask."""
        if not self.solver.takes_scores and not isinstance(self.criterion, BringsSolver):
            names = type(self.solver).__name__, type(self.criterion).__name__
            logger.info("solver %s finds the mask by scores of its own: criterion %s chooses nothing", *names)

    def check_order(self, order: str) -> None:
        """Refuse an order that does not see what the method has to know, before a model is loaded.

        Raises:
            ConfigurationError: the dense model's inputs are asked for beside the others.
        """
        if Needs.CROSS_MOMENTS in self.needs and order != "block":
            reason = "solver.match=dense takes dense inputs beside those of pruned blocks, which only order=block has"
            raise ConfigurationError("pruner.order", order, reason, ["block"])

    def check_share(self, share: float) -> None:
        """Refuse second moments that the dense model's could not be paired with, before a model is loaded.

        Raises:
            ConfigurationError: correlations are to come from a part of the tokens, and cross moments from all of them.
        """
        if Needs.CROSS_MOMENTS in self.needs and share < 1:
            reason = "solver.match=dense takes the correlations of all tokens"
            raise ConfigurationError("calibration.moment_share", share, reason, [1.0])

    def check_experts(self, blocks: Sequence[Block]) -> None:
        """Refuse what cannot be known of a mixture of experts.

        Raises:
            ConfigurationError: the dense model's inputs are asked for, which it may send to other experts.
        """
        experts = any(matrix.expert is not None for block in blocks for matrix in block.matrices)
        if Needs.CROSS_MOMENTS in self.needs and experts:
            reason = "dense and pruned models send tokens to different experts, whose inputs cannot be paired"
            raise ConfigurationError("solver.match", "dense", reason, ["layer"])
