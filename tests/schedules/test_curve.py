"""Damage between the levels at which it was measured, and beyond them."""

import numpy as np
import pytest

from mwanda.schedules.curve import DamageCurve


LEVELS = np.array([0.3, 0.5, 0.7])
SPARSITIES = np.array([0.05, 0.12, 0.3, 0.44, 0.5, 0.66, 0.7, 0.8, 0.95])


@pytest.mark.parametrize("power", [1.5, 3.0, 6.0])
def test_a_power_of_the_sparsity_is_met_everywhere(power: float) -> None:
    """Its slope is `p s^(p − 1)`."""
    curve = DamageCurve(LEVELS, 2 * LEVELS**power)
    np.testing.assert_allclose(curve.at(SPARSITIES), 2 * SPARSITIES**power, rtol=1e-9)
    inside = SPARSITIES[1:-1]
    slopes = np.log(2 * power * inside ** (power - 1))
    np.testing.assert_allclose(curve.with_slope(slopes, 0.1, 0.85), inside, atol=1e-3)


def test_other_curves_go_through_their_levels_and_rise_between_them() -> None:
    damage = np.array([0.2, 1.2, 4.5])
    curve = DamageCurve(LEVELS, damage)
    np.testing.assert_allclose(curve.at(LEVELS), damage)
    assert bool((np.diff(curve.at(np.linspace(0.01, 0.99, 99))) > 0).all())


def test_no_sparsity_does_no_damage() -> None:
    assert DamageCurve(LEVELS, LEVELS).at(np.array([0.0, 0.5])).tolist() == pytest.approx([0.0, 0.5])


def test_one_level_is_taken_to_grow_with_the_third_power() -> None:
    curve = DamageCurve(np.array([0.5]), np.array([2.0]))
    np.testing.assert_allclose(curve.at(np.array([0.25, 0.5])), [0.25, 2.0])


def test_slopes_beyond_the_bounds_end_at_them() -> None:
    curve = DamageCurve(LEVELS, LEVELS**3)
    np.testing.assert_allclose(curve.with_slope(np.array([-np.inf, np.inf]), 0.1, 0.85), [0.1, 0.85])


def test_damage_that_falls_is_taken_to_stay() -> None:
    curve = DamageCurve(LEVELS, np.array([2.0, 1.0, 3.0]))
    assert curve.at(LEVELS).tolist() == pytest.approx([2.0, 2.0, 3.0])
