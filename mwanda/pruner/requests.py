"""What cannot be pruned as asked, and is refused before anything is changed."""

from mwanda.errors import ConfigurationError
from mwanda.patterns import Pattern
from mwanda.pruner.report import Order as Order
from mwanda.pruner.report import PruningReport as PruningReport
from mwanda.schedules import Schedule
from mwanda.schedules.uniform import Uniform


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
