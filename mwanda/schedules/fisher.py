"""Directional Fisher: what each matrix may lose is decided by what losing it would do to the model's predictions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le, Lt, MinLen
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq

from mwanda.errors import ConfigurationError
from mwanda.schedules.base import SIGNAL_FRACTION, BlockMatrix, Level, Looks, SignalFraction, project
from mwanda.statistics import Needs


Values = NDArray[np.float64]

POINTS = 2001
"""Sparsities between the bounds at which the slope of the damage is tabulated."""


@dataclass(frozen=True)
class Fisher:
    """Minimises the predicted damage `Σ_m Σ_l w_l D_ml(s_m)` under the exact budget (ours; docs/methods.md derives it).

    `D_ml(s) = ½ E[⟨g_m, Δ_m(s)⟩²] / T` is the second-order KL divergence, in nats a token, that language l suffers when
    the weights `Δ_m(s)` that the criterion would remove at sparsity s are removed from matrix m alone; `g_m` is the
    gradient of the log-probability of tokens that the dense model itself has drawn (Fisher information along the
    direction of pruning). Curves are pooled, `D_m(s) = a_m d(s)`, as they differ by less than they are uncertain.

    Args:
        levels: sparsities s at which the damage is measured, rising; between and beyond them its logarithm is
            interpolated.
        lowest: no unit gets a lower sparsity than this, unless the target itself is lower.
        highest: nor a higher one, unless the target itself is higher.
        labels: share of a sequence's positions at which tokens are drawn.
        draws: of tokens for each sequence; each costs one more backward pass.
        seed: of what is drawn.
        level: see Schedule.
        signal_fraction: see Schedule.

    Raises:
        ConfigurationError: the levels do not rise, or the bounds are in the wrong order.
    """

    levels: Annotated[tuple[Annotated[float, Gt(0), Lt(1)], ...], MinLen(2)] = (0.3, 0.5, 0.7)
    lowest: Annotated[float, Ge(0), Lt(1)] = 0.1
    highest: Annotated[float, Gt(0), Lt(1)] = 0.85
    labels: Annotated[float, Gt(0), Le(1)] = 0.25
    draws: Annotated[int, Gt(0)] = 1
    seed: int = 0
    level: Level = "matrix"
    signal_fraction: SignalFraction = SIGNAL_FRACTION
    needs: ClassVar[Needs] = Needs.NOTHING
    looks_at: ClassVar[Looks] = "gradients"

    def __post_init__(self) -> None:
        if any(second <= first for first, second in pairwise(self.levels)):
            raise ConfigurationError("schedule.levels", list(self.levels), "must rise, as in [0.3,0.5,0.7]")
        if self.lowest >= self.highest:
            raise ConfigurationError("schedule.lowest", self.lowest, f"must be below schedule.highest={self.highest:g}")

    def signal(self, matrices: Sequence[BlockMatrix]) -> Sequence[float]:
        """Return the damage at each level, in nats a token: the mean over languages of the sum over matrices."""
        total: Values = np.zeros(len(self.levels))
        for matrix in matrices:
            assert matrix.damage is not None
            total += matrix.damage.double().mean(dim=0).cpu().numpy()
        return tuple(total.tolist())

    def allocate(
        self, signals: Sequence[Sequence[float]], shares: Sequence[float], target: float, lower: Sequence[float]
    ) -> list[float]:
        """Return the sparsities at which the predicted damage is least."""
        damage, sizes = np.array(signals, dtype=np.float64), np.array(shares)
        pooled = damage.sum(axis=0)
        if not np.isfinite(damage).all() or (pooled <= 0).any():
            return project([0.0] * len(shares), shares, target, lower)
        bounds = min(self.lowest, target), max(self.highest, target)
        sparsity_at = inverse_slope(np.array(self.levels), pooled, *bounds)
        with np.errstate(divide="ignore"):  # a unit without damage takes all that it may
            relief = np.log(sizes) - np.log((damage / pooled).mean(axis=1))
        return project(least_damage(sparsity_at, relief, sizes, target, np.array(lower)), shares, target, lower)


def inverse_slope(levels: Values, damage: Values, lowest: float, highest: float) -> Callable[[Values], Values]:
    """Return the function from the logarithm of a slope of the damage to the sparsity in `[lowest, highest]` with it.

    The damage is interpolated by a monotone cubic in the logarithms of both, as `D ∝ s³` for small s where scores have
    a density at zero, and goes on beyond the levels as a power of s. Where its slope falls, which noise can make it do,
    it is taken to stay the same, so that each slope belongs to one sparsity.
    """
    grid = np.linspace(max(lowest, 1e-3), highest, POINTS)
    curve = PchipInterpolator(np.log(levels), np.log(np.maximum.accumulate(damage)))
    inside = np.clip(np.log(grid), np.log(levels[0]), np.log(levels[-1]))
    power = np.maximum(curve(inside, 1), 1e-3)
    logarithm = curve(inside) + power * (np.log(grid) - inside)
    slope = np.maximum.accumulate(logarithm + np.log(power) - np.log(grid))
    slope += np.arange(POINTS) * 1e-9  # rises everywhere
    return lambda wanted: np.asarray(np.interp(wanted, slope, grid), dtype=np.float64)


def least_damage(
    sparsity_at: Callable[[Values], Values], relief: Values, sizes: Values, target: float, lower: Values
) -> list[float]:
    """Return the sparsities at which all units have the same slope of damage per weight, or are at a bound.

    The common slope is the multiplier of the budget, found by bisection.

    Args:
        sparsity_at: gives a sparsity for the logarithm of a slope of the pooled damage.
        relief: logarithm of each unit's number of weights over its share of the damage.
        sizes: each unit's share of the weights.
        target: the weighted mean of the sparsities; where bounds leave no such sparsities, the nearest.
        lower: the share of each unit that is zero already.
    """

    def sparsities(multiplier: float) -> Values:
        return np.maximum(sparsity_at(multiplier + relief), lower)

    def excess(multiplier: float) -> float:
        return float(sizes @ sparsities(multiplier) - target)

    finite = relief[np.isfinite(relief)]
    reach = 1e3 + float(np.abs(finite).max(initial=0.0))
    if excess(-reach) >= 0 or excess(reach) <= 0:
        return list(sparsities(-reach if excess(-reach) >= 0 else reach))
    return list(sparsities(brentq(excess, -reach, reach, xtol=1e-13, rtol=1e-15, maxiter=500)))
