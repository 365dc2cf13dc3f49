"""What cannot be pruned as asked, and is refused before anything is changed."""

from collections.abc import Sequence

from mwanda.errors import ConfigurationError
from mwanda.models import Block
from mwanda.patterns import Pattern
from mwanda.pruner.method import Method
from mwanda.pruner.report import Order as Order
from mwanda.pruner.report import PruningReport as PruningReport
from mwanda.schedules import Schedule
from mwanda.schedules.uniform import Uniform
from mwanda.statistics import Needs


def check_order(method: Method, order: Order) -> None:
    """Refuse an order that does not see what the method has to know, before a model is loaded.

    Raises:
        ConfigurationError: the dense model's inputs are asked for beside the others.
    """
    if Needs.CROSS_MOMENTS in method.needs and order != "block":
        reason = "solver.match=dense takes dense inputs beside those of pruned blocks, which only order=block has"
        raise ConfigurationError("pruner.order", order, reason, ["block"])


def check_experts(method: Method, blocks: Sequence[Block]) -> None:
    """Refuse what cannot be known of a mixture of experts.

    Raises:
        ConfigurationError: the dense model's inputs are asked for, which it may send to other experts.
    """
    experts = any(matrix.expert is not None for block in blocks for matrix in block.matrices)
    if Needs.CROSS_MOMENTS in method.needs and experts:
        reason = "dense and pruned models send tokens to different experts, whose inputs cannot be paired"
        raise ConfigurationError("solver.match", "dense", reason, ["layer"])


def check_request(sparsity: float, pattern: Pattern, schedule: Schedule) -> None:
    """Refuse what can be refused before a model is loaded.

    Raises:
        ConfigurationError: the target is not in [0, 1), or the pattern allows another one only.
    """
    if not 0 <= sparsity < 1:
        raise ConfigurationError("sparsity", sparsity, "must be at least 0 and below 1")
    fixed = pattern.fixed_sparsity()
    if fixed is not None and abs(sparsity - fixed) > 1e-12:
        raise ConfigurationError("sparsity", sparsity, f"pattern={pattern.name} always removes {fixed:g}", [fixed])
    if fixed is not None and not isinstance(schedule, Uniform):
        raise ConfigurationError(
            "schedule",
            type(schedule).__name__.lower(),
            f"pattern={pattern.name} is the same in all matrices",
            ["uniform"],
        )
