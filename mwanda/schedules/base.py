"""What a schedule is, and the projection onto the budget that every schedule shares."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, runtime_checkable

import torch
from annotated_types import Gt, Le
from jaxtyping import Float
from scipy.optimize import brentq
from torch import Tensor

from mwanda.statistics import LanguageStatistics, Needs


MOST_OF_A_BLOCK = 0.999
"""No block is emptied for the sake of the others, unless the target itself asks for more."""


SIGNAL_FRACTION = 0.125
"""With an eighth of the default calibration set no block's sparsity moves by more than docs/performance.md says."""

SignalFraction = Annotated[float, Gt(0), Le(1)]
Level = Literal["block", "matrix"]
Looks = Literal["nothing", "weights", "inputs", "gradients"]
Information = Literal["diagonal", "directional"]
"""Of the Fisher information: each weight by itself, or all that is removed of a matrix together."""


@dataclass(frozen=True)
class BlockMatrix:
    """One matrix of a block with what is known of it.

    Args:
        weight: its dense weights.
        statistics: of its inputs, where a schedule looks at them.
        damage: where a schedule looks at gradients, what each language would suffer from pruning this matrix alone to
            each of a few sparsities, in nats a token.
        rows: likewise, what each row has of it, to a common factor, NaN where that is not known; None where of no row.
    """

    weight: Float[Tensor, "out in"]
    statistics: LanguageStatistics | None = None
    damage: Float[Tensor, "L levels"] | None = None
    rows: Float[Tensor, " out"] | None = None


@runtime_checkable
class Schedule(Protocol):
    """Gives each block, or each matrix, a sparsity: both are called units here."""

    @property
    def level(self) -> Level:
        """Whether a unit is a block or a matrix."""
        ...

    @property
    def looks_at(self) -> Looks:
        """What `signal` looks at: `nothing` (it is not called), the `weights`, or also `inputs` or `gradients`."""
        ...

    @property
    def needs(self) -> Needs:
        """What `signal` has to know of the inputs."""
        ...

    @property
    def signal_fraction(self) -> float:
        """The share of each language's calibration tokens that is looked at before pruning starts.

        The order `oneshot`, which has seen all of them by then, takes all.
        """
        ...

    def signal(self, matrices: Sequence[BlockMatrix]) -> Sequence[float]:
        """Return the signals of the unit that consists of these matrices; a schedule may combine several."""
        ...

    def allocate(
        self, signals: Sequence[Sequence[float]], shares: Sequence[float], target: float, lower: Sequence[float]
    ) -> list[float]:
        """Return a sparsity per unit with `Σ shares · sparsity = target`.

        Args:
            signals: what `signal` returned, unit by unit in the order of the model; empty when it looks at nothing.
            shares: each unit's share of the prunable weights, summing to one.
            target: the sparsity over all units.
            lower: the share of each unit that is zero already.
        """
        ...


@runtime_checkable
class LooksAtGradients(Schedule, Protocol):
    """A schedule whose `signal` is told the damage that pruning a matrix alone would do."""

    @property
    def levels(self) -> tuple[float, ...]:
        """The sparsities at which the damage is measured, rising."""
        ...

    @property
    def labels(self) -> float:
        """The share of a sequence's positions at which tokens are drawn from the model's predictions."""
        ...

    @property
    def draws(self) -> int:
        """How many times they are drawn."""
        ...

    @property
    def seed(self) -> int:
        """The seed of what is drawn."""
        ...

    @property
    def information(self) -> Information:
        """How much of the Fisher information is looked at."""
        ...

    @property
    def rows(self) -> bool:
        """Whether the zeros of a matrix are spread over its rows as well."""
        ...

    def over_rows(
        self, signals: Sequence[Sequence[float]], rows: Float[Tensor, " out"], sparsity: float, lower: Sequence[float]
    ) -> list[float]:
        """Return a sparsity for each row of a matrix, whose mean is `sparsity`.

        Args:
            signals: of all units, as for `allocate`.
            rows: the damage of each row, to a common factor; NaN where it is not known.
            sparsity: of the matrix.
            lower: the share of each row that is zero already.
        """
        ...


def spread(signal: Sequence[float], width: float) -> list[float]:
    """Map a signal to sparsities relative to the target, the strongest block `2 · width` below the weakest.

    The map of OWL (Yin et al., ICML 2024, section 3.2). All equal, or not finite (a correlation of one language):
    nothing is spread.
    """
    values = torch.tensor(signal, dtype=torch.float64)
    low, high = values.min(), values.max()
    if not torch.isfinite(values).all() or high <= low:
        return [0.0] * len(signal)
    return (-(values - low) / (high - low) * 2 * width).tolist()


def project(relative: Sequence[float], shares: Sequence[float], target: float, lower: Sequence[float]) -> list[float]:
    """Shift `relative` by one constant, within bounds, so that the weighted mean is exactly `target`.

    The published code shifts by the unweighted mean and checks no bounds; this holds for blocks of different sizes
    and keeps every value in `[lower, 1)`. `target` must be at least `Σ shares · lower`.
    """
    start = torch.tensor(relative, dtype=torch.float64)
    weights = torch.tensor(shares, dtype=torch.float64)
    floor = torch.tensor(lower, dtype=torch.float64)
    ceiling = torch.clamp(floor, min=max(target, MOST_OF_A_BLOCK))

    def shifted(shift: float) -> Tensor:
        return torch.minimum(torch.maximum(start + shift, floor), ceiling)

    def excess(shift: float) -> float:
        return float((weights * shifted(shift)).sum() - target)

    lowest_shift, highest_shift = float((floor - start).min()), float((ceiling - start).max())
    if excess(lowest_shift) >= 0:
        return shifted(lowest_shift).tolist()
    # All at their ceiling, which is the target itself when that is above MOST_OF_A_BLOCK; shares sum to one but for
    # rounding.
    if excess(highest_shift) <= 0:
        return shifted(highest_shift).tolist()
    shift = brentq(excess, lowest_shift, highest_shift, xtol=1e-15, rtol=1e-15, maxiter=500)
    return shifted(shift).tolist()
