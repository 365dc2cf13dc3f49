"""The sparsities that directional Fisher gives, against searches that know no multiplier."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import LinearConstraint, minimize

from mwanda.errors import ConfigurationError
from mwanda.schedules import BlockMatrix
from mwanda.schedules.fisher import Fisher, evenness


LEVELS = (0.3, 0.5, 0.7)


def power_law(amounts: Sequence[float], exponent: float = 3.0) -> list[tuple[float, ...]]:
    """Return the damage `a_k s^p` of each unit at each level."""
    return [tuple(amount * level**exponent for level in LEVELS) for amount in amounts]


def total(amounts: Sequence[float], sparsities: Sequence[float] | NDArray[np.float64], exponent: float = 3.0) -> float:
    return sum(amount * value**exponent for amount, value in zip(amounts, sparsities, strict=True))


@pytest.mark.parametrize("target", [0.3, 0.5, 0.6])
def test_power_laws_have_a_solution_by_hand(target: float) -> None:
    """`s_k ∝ (n_k / a_k)^(1 / (p − 1))` where no bound is met."""
    amounts, sizes = np.array([1.0, 2.0, 0.5, 1.5]), np.array([0.1, 0.4, 0.2, 0.3])
    free = (sizes / amounts) ** 0.5
    expected = free * target / (sizes @ free)
    assert expected.max() < 0.97
    found = Fisher(least_density=0.05).allocate(power_law(list(amounts)), list(sizes), target, [0.0] * 4)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert sizes @ np.array(found) == pytest.approx(target, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_no_other_sparsities_have_less_damage(seed: int) -> None:
    """Against SciPy's general constrained minimiser, which meets bounds here and there."""
    generator = np.random.default_rng(seed)
    amounts, sizes = generator.lognormal(sigma=1.5, size=6), generator.dirichlet(np.ones(6) * 3)
    found = Fisher().allocate(power_law(list(amounts)), list(sizes), 0.5, [0.0] * 6)
    best = minimize(
        lambda values: total(list(amounts), values),
        np.full(6, 0.5),
        bounds=[(0.1, 0.65)] * 6,
        constraints=[LinearConstraint(sizes, 0.5, 0.5)],
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert total(list(amounts), found) == pytest.approx(best.fun, rel=1e-3)
    np.testing.assert_allclose(found, best.x, atol=5e-3)


def test_curves_are_pooled_so_that_one_noisy_level_moves_a_unit_by_a_third() -> None:
    """The amount of a unit is the mean over levels of its share of the damage there."""
    damage = [[1.0, 3.0, 9.0], [2.0, 1.0, 9.0]]
    shares = [np.mean([1 / 3, 3 / 4, 1 / 2]), np.mean([2 / 3, 1 / 4, 1 / 2])]
    pooled = np.sum(damage, axis=0)
    alike = [tuple(share * pooled) for share in shares]
    found = Fisher().allocate([tuple(row) for row in damage], [0.5, 0.5], 0.5, [0.0, 0.0])
    assert found == pytest.approx(Fisher().allocate(alike, [0.5, 0.5], 0.5, [0.0, 0.0]), abs=1e-9)


def test_bounds_hold_and_a_unit_without_damage_takes_all_it_may() -> None:
    signals = power_law([0.0, 1000.0, 1.0, 1.0])
    found = Fisher(lowest=0.2, least_density=0.4).allocate(signals, [0.25] * 4, 0.5, [0.0] * 4)
    assert found == pytest.approx([0.8, 0.2, 0.5, 0.5], abs=1e-6)


@pytest.mark.parametrize("target", [0.3, 0.5, 0.7, 0.9])
def test_every_unit_keeps_a_share_of_the_mean_density(target: float) -> None:
    signals = power_law([0.0, 1000.0, 1.0, 1.0])
    found = Fisher(least_density=0.5).allocate(signals, [0.25] * 4, target, [0.0] * 4)
    assert max(found) == pytest.approx(1 - 0.5 * (1 - target), abs=1e-6)
    alike = Fisher(least_density=1.0).allocate(signals, [0.25] * 4, target, [0.0] * 4)
    assert alike == pytest.approx([target] * 4, abs=1e-6)


def test_bounds_give_way_to_a_target_beyond_them_and_to_zeros_that_are_there() -> None:
    signals = power_law([1.0, 5.0])
    assert Fisher(lowest=0.2).allocate(signals, [0.5, 0.5], 0.05, [0.0, 0.0]) == pytest.approx([0.05, 0.05], abs=1e-9)
    assert Fisher(lowest=0.3).allocate(signals, [0.5, 0.5], 0.5, [0.0, 0.9]) == pytest.approx([0.1, 0.9], abs=1e-9)


@pytest.mark.parametrize(
    "signals",
    [
        [(0.0, 0.0, 0.0), (0.0, 0.0, 0.0)],
        [(math.nan, 1.0, 1.0), (1.0, 1.0, 1.0)],
        [(math.inf, 1.0, 1.0), (1.0, 1.0, 1.0)],
    ],
)
def test_damage_that_says_nothing_spreads_nothing(signals: list[tuple[float, ...]]) -> None:
    assert Fisher().allocate(signals, [0.5, 0.5], 0.5, [0.0, 0.0]) == pytest.approx([0.5, 0.5], abs=1e-12)


def test_damage_that_falls_from_one_level_to_the_next_still_meets_the_budget() -> None:
    found = Fisher().allocate([(3.0, 2.0, 1.0), (1.0, 0.5, 0.1)], [0.5, 0.5], 0.5, [0.0, 0.0])
    assert sum(found) == pytest.approx(1.0, abs=1e-12)
    assert found[0] < found[1]


def test_signal_is_the_mean_over_languages_of_the_sum_over_matrices() -> None:
    damage = [torch.tensor([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]]), torch.tensor([[0.0, 0.0, 1.0], [2.0, 2.0, 1.0]])]
    matrices = [BlockMatrix(torch.zeros(1, 1), damage=each) for each in damage]
    assert Fisher().signal(matrices) == (2.0 + 1.0, 3.0 + 1.0, 4.0 + 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_rows_have_no_better_sparsities(seed: int) -> None:
    """Against SciPy's general constrained minimiser; bounds are met here and there."""
    generator = np.random.default_rng(seed)
    rows = generator.lognormal(sigma=1.5, size=8)
    found = Fisher(least_row_density=0.5).over_rows(power_law([1.0, 2.0]), torch.from_numpy(rows), 0.6, [0.0] * 8)
    trusted = (rows / rows.mean()) ** 0.6
    best = minimize(
        lambda values: total(list(trusted), values),
        np.full(8, 0.6),
        bounds=[(0.1, 0.8)] * 8,
        constraints=[LinearConstraint(np.full(8, 1 / 8), 0.6, 0.6)],
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert np.mean(found) == pytest.approx(0.6, abs=1e-9)
    assert total(list(trusted), found) == pytest.approx(best.fun, rel=1e-3)
    np.testing.assert_allclose(found, best.x, atol=8e-3)


@pytest.mark.parametrize("rows", [[0.0] * 3, [math.nan, 1.0, 1.0], [2.0] * 3])
def test_rows_of_which_nothing_is_known_are_alike(rows: list[float]) -> None:
    found = Fisher().over_rows(power_law([1.0, 2.0]), torch.tensor(rows), 0.4, [0.0] * 3)
    assert found == pytest.approx([0.4] * 3, abs=1e-9)


@pytest.mark.parametrize(("sparsity", "lower"), [(0.0, 0.0), (0.3, 0.2), (0.6, 0.59)])
@pytest.mark.parametrize("signals", [power_law([1.0, 2.0]), [(0.0, 1.0, 2.0)]], ids=["damage", "none at a level"])
def test_rows_meet_the_sparsity_of_their_matrix_whatever_they_hold(
    sparsity: float, lower: float, signals: list[tuple[float, ...]]
) -> None:
    """Some rows are empty already, and the bounds leave no way but through them."""
    held = [1.0] * 3 + [max(0.0, (lower * 10 - 3) / 7)] * 7 if lower > 0.3 else [lower] * 10
    rows = torch.logspace(-2, 2, 10)
    found = Fisher().over_rows(signals, rows, sparsity, held)
    assert np.mean(found) == pytest.approx(sparsity, abs=1e-9)
    assert all(value >= floor - 1e-12 for value, floor in zip(found, held, strict=True))


def test_a_row_that_is_not_known_is_one_in_between() -> None:
    rows, of_all = [1.0, 100.0, math.nan], [1.0, 100.0, 10.0]
    signals = power_law([1.0])
    found, expected = (Fisher().over_rows(signals, torch.tensor(each), 0.5, [0.0] * 3) for each in (rows, of_all))
    assert found == pytest.approx(expected, abs=0.02)
    assert found[0] > found[2] > found[1]


def test_rows_keep_the_zeros_that_are_there() -> None:
    found = Fisher().over_rows(power_law([1.0, 2.0]), torch.tensor([1.0, 1.0, 1.0, 1.0]), 0.4, [0.7, 0.0, 0.0, 0.0])
    assert found == pytest.approx([0.7, 0.3, 0.3, 0.3], abs=1e-6)


def test_a_matrix_whose_rows_differ_costs_what_spreading_leaves_of_it() -> None:
    """Where damage grows exponentially, the best sparsities leave the geometric in place of the arithmetic mean."""
    rows, growth = np.array([1.0, 4.0, 0.5, 0.5]), 8.0
    spread = 0.5 - (np.log(rows) - np.log(rows).mean()) / growth
    left = (rows * np.exp(growth * spread)).sum() / (rows * np.exp(growth * 0.5)).sum()
    assert evenness(rows) == pytest.approx(left)
    assert evenness(np.full(5, 3.0)) == pytest.approx(1)
    damage = torch.tensor([[1.0, 2.0, 3.0]])
    alone = Fisher(row_power=1).signal([BlockMatrix(torch.zeros(4, 4), damage=damage)])
    told = Fisher(row_power=1).signal([BlockMatrix(torch.zeros(4, 4), damage=damage, rows=torch.from_numpy(rows))])
    assert told == pytest.approx([left * value for value in alone])


@pytest.mark.parametrize("levels", [(0.5, 0.5), (0.7, 0.3)])
def test_levels_must_rise(levels: tuple[float, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"schedule\.levels.*must rise"):
        Fisher(levels=levels)
