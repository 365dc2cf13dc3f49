"""The least reconstruction error, against a search that removes one weight at a time and against all masks."""

from itertools import combinations

import pytest
import torch
from torch import Tensor

from mwanda.schedules import BlockMatrix
from mwanda.schedules.lsa import LSA, reconstruction_error
from mwanda.statistics import LanguageStatistics, Needs


def inputs_and_weight(seed: int, rows: int = 3, columns: int = 8) -> tuple[Tensor, Tensor]:
    """Return correlated inputs (tokens × features) and a weight."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator)
    return torch.randn(40, columns, generator=generator) @ mixing, torch.randn(rows, columns, generator=generator)


def error_of(inputs: Tensor, weight: Tensor, gone: Tensor) -> float:
    """Return `‖X (W ⊙ gone)ᵀ‖²` from the inputs themselves."""
    return float((inputs @ (weight * gone).T).double().square().sum())


def one_by_one(inputs: Tensor, weight: Tensor, count: int) -> float:
    """Remove `count` weights of each row, each time the one after which the error is least."""
    gone = torch.zeros_like(weight)
    for row in range(len(weight)):
        for _ in range(count):
            errors = {}
            for column in range(weight.shape[1]):
                if not gone[row, column]:
                    trial = gone[row].clone()
                    trial[column] = 1
                    errors[error_of(inputs, weight[row : row + 1], trial)] = column
            gone[row, errors[min(errors)]] = 1
    return error_of(inputs, weight, gone)


@pytest.mark.parametrize("seed", range(4))
def test_one_weight_a_step_is_the_greedy_search(seed: int) -> None:
    inputs, weight = inputs_and_weight(seed)
    found = reconstruction_error(weight, inputs.T @ inputs, removed=0.5, steps=4).item()
    assert found == pytest.approx(one_by_one(inputs, weight, 4), rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_one_step_removes_the_lowest_scores_of_wanda(seed: int) -> None:
    inputs, weight = inputs_and_weight(seed)
    scores = weight.abs() * inputs.norm(dim=0)
    gone = scores.argsort(dim=1).argsort(dim=1) < 4
    found = reconstruction_error(weight, inputs.T @ inputs, removed=0.5, steps=1).item()
    assert found == pytest.approx(error_of(inputs, weight, gone), rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_no_search_beats_the_best_of_all_masks_and_more_steps_come_near_it(seed: int) -> None:
    inputs, weight = inputs_and_weight(seed)
    best = 0.0
    for row in weight:
        masks = [torch.isin(torch.arange(8), torch.tensor(each)) for each in combinations(range(8), 4)]
        best += min(error_of(inputs, row[None], mask) for mask in masks)
    errors = [reconstruction_error(weight, inputs.T @ inputs, 0.5, steps).item() for steps in (1, 4)]
    assert best * (1 - 1e-4) <= errors[1] <= errors[0]
    assert errors[1] < 1.6 * best


def matrix(seed: int, scale: float = 1.0) -> BlockMatrix:
    inputs, weight = inputs_and_weight(seed)
    statistics = LanguageStatistics.zeros(1, 8, needs=Needs.SECOND_MOMENTS)
    assert statistics.second_moment is not None
    statistics.second_moment += inputs.T @ inputs * scale
    return BlockMatrix(weight, statistics)


def test_signal_is_the_sum_over_the_matrices_and_protect_turns_it_round() -> None:
    errors = []
    for each in (matrix(0), matrix(1)):
        assert each.statistics is not None
        assert each.statistics.second_moment is not None
        errors.append(reconstruction_error(each.weight, each.statistics.second_moment, 0.5, 4).item())
    assert LSA().signal([matrix(0), matrix(1)]) == pytest.approx((-sum(errors),))
    assert LSA(protect="large").signal([matrix(0), matrix(1)]) == pytest.approx((sum(errors),))


def test_the_largest_error_is_pruned_most_as_published() -> None:
    """`I = 1 − E / Σ E` scaled to `[0, 2β]`, `s = S + mean(d) − d`."""
    signals = [LSA().signal([matrix(0, scale)]) for scale in (1.0, 3.0, 2.0)]
    errors = torch.tensor([-signal for (signal,) in signals])
    importance = 1 - errors / errors.sum()
    scaled = (importance - importance.min()) / (importance.max() - importance.min()) * 2 * 0.1
    found = LSA(0.1).allocate(signals, [1 / 3] * 3, 0.5, [0.0] * 3)
    assert found == pytest.approx((0.5 + scaled.mean() - scaled).tolist(), abs=1e-6)
    turned = LSA(0.1, protect="large")
    assert turned.allocate([(-a,) for (a,) in signals], [1 / 3] * 3, 0.5, [0.0] * 3)[0] == max(
        turned.allocate([(-a,) for (a,) in signals], [1 / 3] * 3, 0.5, [0.0] * 3)
    )
