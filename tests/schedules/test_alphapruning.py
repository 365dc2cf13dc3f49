"""Hill's estimate by hand, and the map of AlphaPruning."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mwanda.schedules import BlockMatrix
from mwanda.schedules.alphapruning import AlphaPruning, eigenvalues, hill_exponent


def with_spectrum(spectrum: Tensor, rows: int, columns: int, seed: int = 0) -> Tensor:
    """Return a matrix for which the eigenvalues of `WᵀW` are these (and zeros)."""
    generator = torch.Generator().manual_seed(seed)
    left, _ = torch.linalg.qr(torch.randn(rows, rows, generator=generator, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(columns, columns, generator=generator, dtype=torch.float64))
    size = len(spectrum)
    return left[:, :size] @ torch.diag(spectrum.sqrt()) @ right[:, :size].T


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (4, 4)])
def test_eigenvalues_are_those_that_the_matrix_was_made_of(shape: tuple[int, int]) -> None:
    spectrum = torch.tensor([0.5, 1.0, 4.0, 9.0], dtype=torch.float64)
    torch.testing.assert_close(eigenvalues(with_spectrum(spectrum, *shape)), spectrum)


def test_hill_in_the_middle_by_hand() -> None:
    """The tail is 4, 8, 16: `1 + 3 / (ln 1 + ln 2 + ln 4)`."""
    spectrum = torch.tensor([0.1, 0.2, 0.3, 4.0, 8.0, 16.0])
    assert hill_exponent(spectrum, "middle") == pytest.approx(1 + 3 / (3 * math.log(2)))


def test_hill_at_the_peak_by_hand() -> None:
    """Most eigenvalues are near 1, so that the tail begins at one of 0.99, 1 and 1.01 or 1.2: there the fit is best."""
    values = [0.01, 0.1, 0.99, 1.0, 1.01, 1.2, 2.0, 4.0, 8.0]
    found = hill_exponent(torch.tensor(values, dtype=torch.float64), "peak")
    fits = {}
    for start in (2, 3, 4, 5):
        tail = np.array(values[start:])
        exponent = 1 + len(tail) / np.log(tail / tail[0]).sum()
        empirical = np.arange(len(tail)) / len(tail)
        fits[np.abs(1 - (tail / tail[0]) ** (1 - exponent) - empirical).max()] = exponent
    assert found == pytest.approx(fits[min(fits)])


@pytest.mark.parametrize("tail", ["peak", "middle"])
@pytest.mark.parametrize("exponent", [2.0, 3.5])
def test_hill_finds_the_exponent_of_a_power_law(tail: str, exponent: float) -> None:
    uniform = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    spectrum = (1 - uniform) ** (-1 / (exponent - 1))
    assert hill_exponent(spectrum, "peak" if tail == "peak" else "middle") == pytest.approx(exponent, rel=0.02)


def test_eigenvalues_that_are_zero_but_for_rounding_count_for_nothing() -> None:
    few = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
    with_zeros = torch.cat([torch.tensor([-1e-17, 0.0, 1e-16], dtype=torch.float64), few])
    for tail in ("peak", "middle"):
        assert hill_exponent(with_zeros, tail) == hill_exponent(few, tail)


@pytest.mark.parametrize("spectrum", [[0.0, 0.0, 0.0], [2.0, 2.0, 2.0], [1.0]])
def test_without_a_tail_there_is_no_exponent(spectrum: list[float]) -> None:
    assert math.isnan(hill_exponent(torch.tensor(spectrum)))


def test_signal_is_the_mean_over_the_matrices_and_a_heavier_tail_keeps_more() -> None:
    heavy = torch.tensor([4.0**power for power in range(8)], dtype=torch.float64)
    light = torch.tensor([1.3**power for power in range(8)], dtype=torch.float64)
    schedule = AlphaPruning(tail="middle")
    blocks = [
        [BlockMatrix(with_spectrum(first, 8, 12)), BlockMatrix(with_spectrum(second, 9, 8))]
        for first, second in ((heavy, heavy), (heavy, light), (light, light))
    ]
    signals = [schedule.signal(each) for each in blocks]
    exponents = [hill_exponent(each, "middle") for each in (heavy, light)]
    expected = [-exponents[0], -sum(exponents) / 2, -exponents[1]]
    assert [signal for (signal,) in signals] == pytest.approx(expected, rel=1e-6)
    found = schedule.allocate(signals, [1 / 3] * 3, 0.5, [0.0] * 3)
    assert found == sorted(found)
    assert found[2] / found[0] == pytest.approx(1.3 / 0.7)
    assert sum(found) == pytest.approx(1.5, abs=1e-12)


def test_the_map_is_the_published_one_for_equal_blocks() -> None:
    alphas = np.array([2.0, 3.1, 2.4, 5.0])
    ratios = (alphas - alphas.min()) / (alphas.max() - alphas.min()) * (1.2 - 0.8) + 0.8
    expected = ratios * 4 * 0.7 / ratios.sum()
    found = AlphaPruning(width=0.2).allocate([(-alpha,) for alpha in alphas], [0.25] * 4, 0.7, [0.0] * 4)
    np.testing.assert_allclose(found, expected, atol=1e-12)
