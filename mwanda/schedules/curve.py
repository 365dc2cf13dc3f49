"""How predicted damage grows with sparsity: interpolation between the levels at which it was measured."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator


Values = NDArray[np.float64]

SMALL_SPARSITIES = 3.0
"""`D ∝ s³` for small s, where the scores of the removed weights have a density at zero: what is removed is bounded by a
threshold in proportion to s, and its square adds up over a number in proportion to s."""

POINTS = 2001
"""Sparsities at which the slope of the damage is tabulated."""


@dataclass(frozen=True, eq=False)
class DamageCurve:
    """Damage as a function of sparsity.

    Between the levels it is a monotone cubic in the logarithms of both, beyond them a power of the sparsity with the
    exponent at the last level.

    Args:
        levels: sparsities, rising.
        damage: at each, positive; where it falls from one to the next, which noise can make it do, it is taken to stay.
    """

    levels: Values
    damage: Values

    @cached_property
    def _cubic(self) -> PchipInterpolator | None:
        if len(self.levels) == 1:
            return None
        return PchipInterpolator(np.log(self.levels), np.log(np.maximum.accumulate(self.damage)))

    def logarithm(self, sparsities: Values) -> tuple[Values, Values]:
        """Return the logarithm of the damage, and the exponent of its growth there."""
        where = np.log(sparsities)
        inside = np.clip(where, np.log(self.levels[0]), np.log(self.levels[-1]))
        if self._cubic is None:
            exponent = np.full_like(where, SMALL_SPARSITIES)
            return np.log(self.damage[0]) + exponent * (where - inside), exponent
        exponent = np.maximum(self._cubic(inside, 1), 1e-3)
        return np.asarray(self._cubic(inside) + exponent * (where - inside)), exponent

    def at(self, sparsities: Values) -> Values:
        """Return the damage; none at a sparsity of zero."""
        positive = sparsities > 0
        logarithm, _ = self.logarithm(np.where(positive, sparsities, 1.0))
        return np.where(positive, np.exp(logarithm), 0.0)

    def with_slope(self, logarithms: Values, lowest: float, highest: float) -> Values:
        """Return the sparsity in `[lowest, highest]` at which the slope of the damage has a logarithm.

        Where the slope falls, it is taken to stay the same, so that each slope belongs to one sparsity.
        """
        grid, slope = _slopes(self, max(lowest, 1e-3), highest)
        return np.asarray(np.interp(logarithms, slope, grid), dtype=np.float64)


@lru_cache(maxsize=4)
def _slopes(curve: DamageCurve, lowest: float, highest: float) -> tuple[Values, Values]:
    """Return sparsities and the logarithms of the slope there, made once for each search of a multiplier."""
    grid = np.linspace(lowest, highest, POINTS)
    logarithm, exponent = curve.logarithm(grid)
    slope = np.maximum.accumulate(logarithm + np.log(exponent) - np.log(grid))
    return grid, slope + np.arange(POINTS) * 1e-9  # rises everywhere
