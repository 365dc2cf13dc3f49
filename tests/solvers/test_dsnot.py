"""DSnoT against a plain loop over rows and cycles."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import PATTERNS, UNSTRUCTURED, layer, matrices, random_weight, zeros_of_groups
from torch import Tensor

from mwanda.patterns import Pattern
from mwanda.patterns.n_of_m import NOfM
from mwanda.solvers import MaskSolver
from mwanda.solvers.dsnot import DSnoT
from mwanda.statistics import Needs, mean_and_variance


PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)

every_pattern = pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)


def inputs_with_means(tokens: int, features: int, seed: int = 0) -> Tensor:
    """Return inputs whose means and variances differ, as those of activations do."""
    generator = torch.Generator().manual_seed(seed)
    mean, scale = torch.randn(features, generator=generator), torch.rand(features, generator=generator) + 0.1
    return mean + scale * torch.randn(tokens, features, generator=generator)


def plainly(solver: DSnoT, weight: Tensor, pruned: Tensor, scores: Tensor, inputs: Tensor, cell: int | None) -> Tensor:
    """Return the refined mask, a row at a time."""
    means, variances = inputs.double().mean(dim=0), inputs.double().var(dim=0, correction=0)
    refined = pruned.clone()
    for row, mask in enumerate(refined):
        change = (weight[row].double() * means).tolist()
        error = sum(value for value, gone in zip(change, mask.tolist(), strict=True) if gone)
        sign = 1 if error > 0 else -1
        growing = [j for j in range(len(change)) if mask[j] and sign * change[j] > 0]
        growing.sort(key=lambda j: -sign * change[j] / float(variances[j]) ** solver.variance_exponent)
        losing = [k for k in range(len(change)) if not mask[k] and (cell or sign * change[k] < 0)]
        losing.sort(key=lambda k: float(scores[row, k]))
        for cycle, grown in enumerate(growing[: solver.cycles]):
            near = losing[cycle:] if cell is None else [k for k in losing if k // cell == grown // cell]
            if abs(error) <= solver.tolerance or not near:
                continue
            after = error + change[near[0]] - change[grown]
            if after * sign > 0 and abs(after) < abs(error):
                error = after
                mask[grown], mask[near[0]] = False, True
                if cell is not None:
                    losing.remove(near[0])
    return refined


def test_it_is_a_solver_of_masks() -> None:
    assert isinstance(DSnoT(), MaskSolver)


@every_pattern
@pytest.mark.parametrize("exponent", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_plain_loop(pattern: Pattern, exponent: float, seed: int) -> None:
    inputs, weight = inputs_with_means(50, 24, seed), random_weight(8, 24, seed)
    one = layer(weight, inputs, pattern, needs=Needs.MEANS)
    assert one.scores is not None
    for solver in (DSnoT(cycles=1), DSnoT(variance_exponent=exponent), DSnoT(tolerance=0.5)):
        found = solver.select(one)
        assert torch.equal(found, plainly(solver, weight, one.lowest_scores(), one.scores, inputs, pattern.cell))
    changed = [bool((DSnoT(variance_exponent=each).select(one) != one.lowest_scores()).any()) for each in (0.0, 1.0)]
    assert any(changed)


@every_pattern
def test_the_expected_error_shrinks(pattern: Pattern) -> None:
    inputs, weight = inputs_with_means(50, 64), random_weight(16, 64)
    one = layer(weight, inputs, pattern, needs=Needs.MEANS)
    change = weight * inputs.mean(dim=0)
    before, after = ((change * mask).sum(dim=1).abs() for mask in (one.lowest_scores(), DSnoT().select(one)))
    assert bool((after <= before).all())
    assert after.sum() < 0.7 * before.sum()


@PROPERTY
@given(data=st.data(), pattern=st.sampled_from([UNSTRUCTURED, NOfM(2, 4), NOfM(1, 3)]))
def test_counts_are_kept(data: st.DataObject, pattern: Pattern) -> None:
    weight, inputs = data.draw(matrices(pattern.cell or 1))
    sparsity = data.draw(st.floats(0, 0.99)) if pattern is UNSTRUCTURED else pattern.fixed_sparsity() or 0
    one = layer(weight, inputs, pattern, sparsity, needs=Needs.MEANS)
    before, after = one.lowest_scores(), DSnoT(tolerance=0).select(one)
    assert torch.equal(zeros_of_groups(after, one.budget), zeros_of_groups(before, one.budget))
    assert bool(after[weight == 0].all())


def test_means_and_variances_are_those_of_all_tokens() -> None:
    inputs = inputs_with_means(1000, 6)
    one = layer(random_weight(2, 6), inputs, needs=Needs.MEANS)
    assert one.statistics is not None
    mean, variance = mean_and_variance(one.statistics)
    torch.testing.assert_close(mean, inputs.mean(dim=0))
    torch.testing.assert_close(variance, inputs.var(dim=0, correction=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refined_as_the_same_values_in_single(dtype: torch.dtype) -> None:
    inputs, weight = inputs_with_means(60, 24), random_weight(6, 24).to(dtype)
    found, expected = (DSnoT().select(layer(each, inputs, needs=Needs.MEANS)) for each in (weight, weight.float()))
    assert torch.equal(found, expected)


def test_a_constant_input_is_the_first_to_come_back() -> None:
    """Its variance is zero, so that nothing is as sure as what it adds."""
    inputs = torch.tensor([[1.0, 3.0, 1.0, -2.0], [1.0, -1.0, -3.0, 2.5]])
    weight = torch.tensor([[1.0, 2.0, 3.0, -0.1]])
    one = layer(weight, inputs, needs=Needs.MEANS)
    pruned = torch.tensor([[True, True, False, False]])
    mean, variance = mean_and_variance(one.statistics)  # type: ignore[arg-type]
    found = DSnoT(cycles=1).refine(weight, pruned, weight.abs(), mean, variance)
    assert found.tolist() == [[False, True, False, True]]
