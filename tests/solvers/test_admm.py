"""ADMM against masked least squares, solved row by row."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import (
    PATTERNS,
    UNSTRUCTURED,
    correlated_inputs,
    errors,
    layer,
    mask_of,
    matrices,
    random_weight,
    zeros_of_groups,
)
from torch import Tensor

from mwanda.patterns import Pattern
from mwanda.patterns.n_of_m import NOfM
from mwanda.solvers import MaskSolver, WeightSolver, admm
from mwanda.solvers.admm import ADMM
from mwanda.solvers.gram import Shared, regularised


PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)

every_pattern = pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
every_mask = pytest.mark.parametrize("mask", ["gradual", "scores"])


def least_squares(weight: Tensor, pruned: Tensor, gram: Tensor) -> Tensor:
    """Return the weights that keep the outputs best under a mask: of each row the normal equations of what is kept."""
    best = torch.zeros_like(weight, dtype=torch.float64)
    for row, (values, mask) in enumerate(zip(weight.double(), pruned, strict=True)):
        kept = ~mask
        best[row, kept] = torch.linalg.solve(gram[kept][:, kept], gram[kept] @ values)
    return best


def test_it_is_a_solver_of_weights() -> None:
    assert isinstance(ADMM(), WeightSolver)
    assert not isinstance(ADMM(), MaskSolver)
    assert (ADMM().takes_scores, ADMM().group) == (False, "row")
    assert (ADMM(mask="scores").takes_scores, ADMM(mask="scores").group) == (True, None)


@every_mask
@every_pattern
@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_the_fixed_point_is_the_masked_least_squares_solution(pattern: Pattern, shrinkage: float, mask: str) -> None:
    inputs, weight = correlated_inputs(200, 16), random_weight(5, 16)
    found = ADMM(3000, mask, penalty=0.3, shrinkage=shrinkage).solve(layer(weight, inputs, pattern))
    gram = regularised(inputs.double().T @ inputs.double(), shrinkage, 0)
    torch.testing.assert_close(found.double(), least_squares(weight, found == 0, gram), rtol=2e-3, atol=2e-3)


@every_pattern
def test_the_mask_of_scores_is_kept(pattern: Pattern) -> None:
    one = layer(random_weight(5, 16), correlated_inputs(60, 16), pattern)
    assert torch.equal(ADMM(mask="scores").solve(one) == 0, one.lowest_scores())


@every_pattern
@pytest.mark.parametrize("seed", range(3))
def test_few_rounds_are_near_the_best_under_their_mask_and_better_than_wanda(pattern: Pattern, seed: int) -> None:
    inputs, weight = correlated_inputs(200, 32, seed), random_weight(8, 32, seed)
    one = layer(weight, inputs, pattern)
    gram = regularised(inputs.double().T @ inputs.double(), 0.3, 0)
    found = ADMM().solve(one)
    best = errors(weight, least_squares(weight, found == 0, gram), gram).sum()
    assert best <= errors(weight, found, gram).sum() < 1.001 * best
    assert errors(weight, found, gram).sum() < 0.7 * errors(weight, weight * ~one.lowest_scores(), gram).sum()


def test_rounds_are_those_of_the_formula() -> None:
    """With one round for the mask, which is then Wanda's: written out with matrices of the unscaled problem."""
    inputs, weight = correlated_inputs(60, 12), random_weight(4, 12)
    one = layer(weight, inputs)
    norms = inputs.double().norm(dim=0)
    gram = (inputs.double().T @ inputs.double()) / norms / norms[:, None]
    scaled, mask = weight.double() * norms, ~one.lowest_scores()
    current, multiplier = scaled, torch.zeros_like(scaled)
    for _ in range(5):
        kept = (current + multiplier) * mask
        multiplier = multiplier + current - kept
        current = (scaled @ gram + 0.7 * (kept - multiplier)) @ torch.linalg.inv(gram + 0.7 * torch.eye(12))
    expected = (current + multiplier) * mask / norms
    found = ADMM(5, mask_rounds=1, penalty=0.7, shrinkage=0).solve(one)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


@PROPERTY
@given(data=st.data(), pattern=st.sampled_from([UNSTRUCTURED, NOfM(2, 4), NOfM(1, 3)]), rounds=st.sampled_from([1, 7]))
def test_zeros_are_exactly_those_planned(data: st.DataObject, pattern: Pattern, rounds: int) -> None:
    weight, inputs = data.draw(matrices(pattern.cell or 1))
    sparsity = data.draw(st.floats(0, 0.99)) if pattern is UNSTRUCTURED else pattern.fixed_sparsity() or 0
    one = layer(weight, inputs, pattern, sparsity)
    for solver in (ADMM(rounds), ADMM(rounds, "scores"), ADMM(rounds, shrinkage=0, damping=0.1)):
        found = solver.solve(one)
        assert found.dtype == torch.float32
        assert bool(torch.isfinite(found).all())
        assert bool((found[weight == 0] == 0).all())
        before = zeros_of_groups(weight == 0, one.budget)
        after = zeros_of_groups(mask_of(found), one.budget)
        assert torch.equal(after, before.clamp(min=one.budget.prune_per_group))
        assert int(after.sum()) == one.budget.planned


def test_weights_of_silent_inputs_are_pruned_first_and_change_nothing() -> None:
    inputs, weight = correlated_inputs(60, 16), random_weight(6, 16)
    silent = [1, 2, 9, 14]
    inputs[:, silent] = 0
    found = ADMM().solve(layer(weight, inputs, sparsity=0.25))
    others = [column for column in range(16) if column not in silent]
    assert bool((found[:, silent] == 0).all())
    torch.testing.assert_close(found[:, others], weight[:, others], rtol=1e-3, atol=1e-4)


def test_nothing_to_prune_leaves_the_weights() -> None:
    inputs, weight = correlated_inputs(60, 16), random_weight(6, 16)
    inputs[:, 3] = 0
    torch.testing.assert_close(ADMM().solve(layer(weight, inputs, sparsity=0)), weight, rtol=1e-3, atol=1e-4)


def test_the_weight_is_left_alone() -> None:
    weight = random_weight(4, 8)
    before = weight.clone()
    ADMM().solve(layer(weight, correlated_inputs(9, 8)))
    assert torch.equal(weight, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_solved_in_single(dtype: torch.dtype) -> None:
    inputs, weight = correlated_inputs(60, 24), random_weight(6, 24).to(dtype)
    assert torch.equal(ADMM().solve(layer(weight, inputs)), ADMM().solve(layer(weight.float(), inputs)))


def test_a_single_weight() -> None:
    one = layer(torch.full((1, 1), 3.0), torch.ones(2, 1), sparsity=0)
    torch.testing.assert_close(ADMM().solve(one), torch.full((1, 1), 3.0))


def test_matrices_with_the_same_inputs_share_one_inverse(monkeypatch: pytest.MonkeyPatch) -> None:
    made, own = [], admm._inverse

    def counted(curvature: Tensor, penalty: float) -> Tensor:
        made.append(penalty)
        return own(curvature, penalty)

    monkeypatch.setattr(admm, "_inverse", counted)
    inputs, shared = correlated_inputs(60, 8), Shared()
    for number, (text, expected) in enumerate([(inputs, 1), (inputs.clone(), 1), (inputs * 2, 2)]):
        each = layer(random_weight(4, 8, number), text)
        found = ADMM().solve(replace(each, shared=shared))
        assert len(made) == expected
        assert found.equal(ADMM().solve(each))
        made.pop()
    ADMM(shrinkage=0.5).solve(replace(layer(random_weight(4, 8), inputs * 2), shared=shared))
    assert len(made) == 3
