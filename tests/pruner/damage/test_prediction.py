"""Predictions by hand: what is added up, how uncertain it is, and the largest sparsity within a limit."""

import math

import numpy as np
import pytest
import torch

from mwanda.pruner.damage import Damage
from mwanda.pruner.damage.prediction import Predictor, largest_within, predict


LEVELS = (0.25, 0.5)


def damage(products: torch.Tensor, languages: list[int], rare: bool = False) -> Damage:
    names = tuple(f"experts.{index}" for index in range(products.shape[2]))
    siblings = tuple((name, names) for name in names) if rare else ()
    return Damage(names, torch.tensor(languages), LEVELS, positions=2, squares=products.square(), rare=siblings)


def products(sequences: int = 6, draws: int = 2, matrices: int = 3) -> torch.Tensor:
    values = torch.randn(sequences, draws, matrices, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.cat([values, 8**0.5 * values], dim=3)  # damage in proportion to s³


def test_at_a_level_the_damage_of_all_matrices_is_added_up() -> None:
    values = products()
    predictor = Predictor(damage(values, [0, 0, 1, 1, 1, 1]))
    for index, level in enumerate(LEVELS):
        found = predictor.at({f"experts.{matrix}": level for matrix in range(3)})
        squares = values[..., index].square().sum(dim=2) / (4 * 2)
        expected = torch.stack([squares[:2].mean(), squares[2:].mean()])
        torch.testing.assert_close(found.log_ratio, expected)


def test_matrices_at_sparsities_of_their_own_between_and_beyond_the_levels() -> None:
    values = products()
    predictor = Predictor(damage(values, [0] * 6))
    wanted = {"experts.0": 0.1, "experts.1": 0.4, "experts.2": 0.8}
    first = values[..., 0].square().mean(dim=(0, 1)) / (4 * 2)
    expected = sum(float(first[place]) * (s / 0.25) ** 3 for place, s in enumerate(wanted.values()))
    assert float(predictor.at(wanted).log_ratio[0]) == pytest.approx(expected)


def test_a_matrix_that_is_left_alone_does_no_damage() -> None:
    predictor = Predictor(damage(products(), [0] * 6))
    assert float(predictor.at(dict.fromkeys(("experts.0", "experts.1", "experts.2"), 0.0)).log_ratio[0]) == 0


def test_rare_experts_are_predicted_by_all_of_them() -> None:
    values = products()
    shared = Predictor(damage(values, [0] * 6, rare=True))
    mean = values[..., 1].square().mean() / (4 * 2)
    one = {"experts.0": 0.5, "experts.1": 0.0, "experts.2": 0.0}
    torch.testing.assert_close(shared.at(one).log_ratio[0], mean)


def test_intervals_are_as_wide_as_the_spread_of_all_samples_says() -> None:
    samples = torch.tensor([[1.0, 3.0], [2.0, 2.0], [8.0, 12.0]], dtype=torch.float64)
    found = predict(samples, torch.tensor([0, 0, 1]))
    assert found.log_ratio.tolist() == [2.0, 10.0]
    squares = [(1 / 2 - 1) ** 2, (3 / 2 - 1) ** 2, 0, 0, (8 / 10 - 1) ** 2, (12 / 10 - 1) ** 2]
    variance = sum(squares) / (3 + 1)
    for language, (count, mean) in enumerate(((4, 2.0), (2, 10.0))):
        factor = math.exp(1.959964 * math.sqrt(math.log1p(variance / count)))
        assert float(found.high[language]) == pytest.approx(mean * factor, rel=1e-5)
        assert float(found.low[language]) == pytest.approx(mean / factor, rel=1e-5)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Sums of squares as a gradient gives them, four sequences of each of twenty languages."""
    generator = np.random.default_rng(0)
    truth = generator.lognormal(sigma=0.5, size=20)
    inside = []
    for _ in range(50):
        samples = torch.from_numpy(truth[:, None] * generator.chisquare(6, size=(20, 4)) / 6)
        found = predict(samples.flatten()[:, None], torch.arange(20).repeat_interleave(4))
        inside += ((found.low.numpy() <= truth) & (truth <= found.high.numpy())).tolist()
    assert 0.91 < np.mean(inside) < 0.98


@pytest.mark.parametrize(
    ("limit", "expected"), [(0.3**3, 0.3), (0.5**3, 0.5), (0.05**3, None), (0.1**3, 0.1), (2.0, 0.9)]
)
def test_the_largest_sparsity_within_a_limit(limit: float, expected: float | None) -> None:
    found = largest_within(lambda sparsity: sparsity**3, limit, 0.1, 0.9)
    assert found == (expected if expected is None else pytest.approx(expected, abs=1e-3))
