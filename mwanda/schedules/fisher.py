"""Directional Fisher: what each matrix may lose is decided by what losing it would do to the model's predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le, Lt, MinLen
from jaxtyping import Float
from scipy.optimize import brentq
from torch import Tensor

from mwanda.errors import ConfigurationError
from mwanda.schedules.base import SIGNAL_FRACTION, BlockMatrix, Information, Level, Looks, SignalFraction, project
from mwanda.schedules.curve import DamageCurve, Values
from mwanda.statistics import Needs


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
        least_density: each unit keeps at least this share of the density `1 − target` that is kept on average: a matrix
            of which next to nothing is left does more harm than its second order says (docs/log.md).
        labels: share of a sequence's positions at which tokens are drawn.
        draws: of tokens for each sequence; each costs one more backward pass.
        seed: of what is drawn.
        information: `diagonal` adds up the damage of the single weights, `½ E[Σ_ij (g_ij Δ_ij)²] / T`; `directional` is
            D itself, with what weights do together, and needs several times the text for the same certainty
            (docs/log.md).
        row_power: the zeros of a matrix are spread over its rows by the same rule, by this power of the rows' damage: a
            row is told by few tokens and few languages, so that one would trust it too much; zero has all rows alike.
            What compares weights of different rows, as SparseGPT and magnitude pruning do, spreads them by itself.
        least_row_density: each row keeps at least this share of what its matrix keeps on average.
        level: see Schedule.
        signal_fraction: see Schedule.

    Raises:
        ConfigurationError: the levels do not rise.
    """

    levels: Annotated[tuple[Annotated[float, Gt(0), Lt(1)], ...], MinLen(2)] = (0.3, 0.5, 0.7)
    lowest: Annotated[float, Ge(0), Lt(1)] = 0.1
    least_density: Annotated[float, Gt(0), Le(1)] = 0.7
    labels: Annotated[float, Gt(0), Le(1)] = 0.25
    draws: Annotated[int, Gt(0)] = 1
    seed: int = 0
    information: Information = "diagonal"
    row_power: Annotated[float, Ge(0), Le(1)] = 0.6
    least_row_density: Annotated[float, Gt(0), Le(1)] = 0.5
    level: Level = "matrix"
    signal_fraction: SignalFraction = SIGNAL_FRACTION
    needs: ClassVar[Needs] = Needs.NOTHING
    looks_at: ClassVar[Looks] = "gradients"

    def __post_init__(self) -> None:
        if any(second <= first for first, second in pairwise(self.levels)):
            raise ConfigurationError("schedule.levels", list(self.levels), "must rise, as in [0.3,0.5,0.7]")

    @property
    def rows(self) -> bool:
        """Whether the zeros of a matrix are spread over its rows."""
        return self.row_power > 0

    def _trusted(self, rows: Float[Tensor, " out"]) -> Values:
        return np.asarray(_above_least(rows) ** self.row_power)

    def signal(self, matrices: Sequence[BlockMatrix]) -> Sequence[float]:
        """Return the damage at each level, in nats a token: the mean over languages of the sum over matrices."""
        total: Values = np.zeros(len(self.levels))
        for matrix in matrices:
            assert matrix.damage is not None
            spared = 1.0 if matrix.rows is None else evenness(self._trusted(matrix.rows))
            total += matrix.damage.double().mean(dim=0).cpu().numpy() * spared
        return tuple(total.tolist())

    def allocate(
        self, signals: Sequence[Sequence[float]], shares: Sequence[float], target: float, lower: Sequence[float]
    ) -> list[float]:
        """Return the sparsities at which the predicted damage is least."""
        damage, sizes = np.array(signals, dtype=np.float64), np.array(shares)
        pooled = damage.sum(axis=0)
        if not np.isfinite(damage).all() or (pooled <= 0).any():
            return project([0.0] * len(shares), shares, target, lower)
        bounds = min(self.lowest, target), 1 - self.least_density * (1 - target)
        curve = DamageCurve(np.array(self.levels), pooled)
        with np.errstate(divide="ignore"):  # a unit without damage takes all that it may
            relief = np.log(sizes) - np.log((damage / pooled).mean(axis=1))
        found = least_damage(curve, relief, sizes, target, np.array(lower), *bounds)
        return project(found, shares, target, lower)

    def over_rows(
        self, signals: Sequence[Sequence[float]], rows: Float[Tensor, " out"], sparsity: float, lower: Sequence[float]
    ) -> list[float]:
        """Return the sparsities of the rows of one matrix at which its predicted damage is least."""
        pooled, sizes = np.array(signals, dtype=np.float64).sum(axis=0), np.full(len(rows), 1 / len(rows))
        if not np.isfinite(pooled).all() or (pooled <= 0).any():
            return project([0.0] * len(rows), list(sizes), sparsity, lower)
        bounds = min(self.lowest, sparsity), 1 - self.least_row_density * (1 - sparsity)
        curve = DamageCurve(np.array(self.levels), pooled)
        found = least_damage(curve, -np.log(self._trusted(rows)), sizes, sparsity, np.array(lower), *bounds)
        return project(found, list(sizes), sparsity, lower)


LEAST_OF_A_ROW = 1e-3
"""Of the mean: a row is not taken to suffer less than that, which few sequences cannot tell."""


def _above_least(rows: Float[Tensor, " out"]) -> Values:
    """Return the damage of rows relative to their mean; of those that are not known, that of a row in between."""
    values = np.asarray(rows.double().cpu().numpy(), dtype=np.float64)
    known = np.isfinite(values)
    mean = values[known].mean() if known.any() else 0.0
    if mean <= 0:
        return np.ones_like(values)
    found = np.maximum(np.where(known, values, mean) / mean, LEAST_OF_A_ROW)
    found[~known] = np.exp(np.log(found[known]).mean())
    return found


def evenness(rows: Values) -> float:
    """Return the geometric over the arithmetic mean of the rows' damage, one where all suffer alike.

    With `d(s) ∝ exp(κ s)` the sparsities `s − (log e_i − mean log e) / κ` equalise all slopes `e_i d'(s_i)`, and leave
    `Σ_i e_i d(s_i)` at that share of what one sparsity for all rows does.
    """
    return float(np.exp(np.log(rows).mean()) / rows.mean())


def least_damage(
    curve: DamageCurve,
    relief: Values,
    sizes: Values,
    target: float,
    lower: Values,
    lowest: float,
    highest: float,
) -> list[float]:
    """Return the sparsities at which all units have the same slope of damage per weight, or are at a bound.

    The common slope is the multiplier of the budget, found by bisection.

    Args:
        curve: the pooled damage.
        relief: logarithm of each unit's number of weights over its share of the damage.
        sizes: each unit's share of the weights.
        target: the weighted mean of the sparsities; where bounds leave no such sparsities, the nearest.
        lower: the share of each unit that is zero already.
        lowest: bound of every sparsity.
        highest: likewise.
    """

    def sparsities(multiplier: float) -> Values:
        return np.maximum(curve.with_slope(multiplier + relief, lowest, highest), lower)

    def excess(multiplier: float) -> float:
        return float(sizes @ sparsities(multiplier) - target)

    finite = relief[np.isfinite(relief)]
    reach = 1e3 + float(np.abs(finite).max(initial=0.0))
    if excess(-reach) >= 0 or excess(reach) <= 0:
        return list(sparsities(-reach if excess(-reach) >= 0 else reach))
    return list(sparsities(brentq(excess, -reach, reach, xtol=1e-13, rtol=1e-15, maxiter=500)))
