"""1-swaps against brute force: every exchange of a row, tried."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import PATTERNS, UNSTRUCTURED, correlated_inputs, errors, layer, matrices, random_weight, zeros_of_groups
from torch import Tensor

from mwanda.patterns import Pattern
from mwanda.patterns.n_of_m import NOfM
from mwanda.solvers import MaskSolver, Solver, WeightSolver
from mwanda.solvers.gram import regularised
from mwanda.solvers.swap import Swap


PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)
PLAIN = Swap(shrinkage=0, tolerance=0)

every_pattern = pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)


def error(row: Tensor, pruned: Tensor, gram: Tensor) -> float:
    lost = (row * pruned).double()
    return float(lost @ gram.double() @ lost)


def best_exchange(row: Tensor, pruned: Tensor, gram: Tensor, cell: int | None) -> float:
    """Return the lowest change of a row's error by any exchange of a pruned weight for a kept one."""
    before, best = error(row, pruned, gram), 0.0
    for restored, dropped in itertools.product(range(len(row)), repeat=2):
        apart = cell is not None and restored // cell != dropped // cell
        if pruned[restored] and not pruned[dropped] and row[restored] and row[dropped] and not apart:
            after = pruned.clone()
            after[restored], after[dropped] = False, True
            best = min(best, error(row, after, gram) - before)
    return best


def gram_of(inputs: Tensor) -> Tensor:
    return inputs.T @ inputs


def test_it_is_a_solver_of_masks() -> None:
    assert isinstance(Swap(), Solver)
    assert isinstance(Swap(), MaskSolver)
    assert not isinstance(Swap(), WeightSolver)


@every_pattern
@pytest.mark.parametrize("shrinkage", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_with_all_weights_in_the_pool_no_single_exchange_is_left(pattern: Pattern, shrinkage: float, seed: int) -> None:
    inputs, weight = correlated_inputs(60, 24, seed), random_weight(5, 24, seed)
    solver = Swap(rounds=100, pool=24, shrinkage=shrinkage, tolerance=0)
    one = layer(weight, inputs, pattern)
    before, after = one.lowest_scores(), solver.select(one)
    gram = regularised(gram_of(inputs), shrinkage, 0)
    for row, start, end in zip(weight, before, after, strict=True):
        assert error(row, end, gram) <= error(row, start, gram)
        assert best_exchange(row, end, gram, pattern.cell) > -1e-5 * error(row, end, gram)
    assert any(best_exchange(*pair, gram, pattern.cell) < 0 for pair in zip(weight, before, strict=True))


@every_pattern
def test_each_exchange_lowers_the_error(pattern: Pattern) -> None:
    """With a pool of one, a round is one exchange in each row."""
    inputs, weight = correlated_inputs(60, 24), random_weight(6, 24)
    one, gram = layer(weight, inputs, pattern), gram_of(inputs)
    masks = [one.lowest_scores()]
    for rounds in range(1, 12):
        masks.append(Swap(rounds, pool=1, shrinkage=0, tolerance=0).select(one))
    for before, after in itertools.pairwise(masks):
        changed = (before != after).sum(dim=1)
        assert set(changed.tolist()) <= {0, 2}
        fall = errors(weight, weight * ~before, gram) - errors(weight, weight * ~after, gram)
        assert bool((fall[changed > 0] > 0).all())
        assert bool((fall[changed == 0] == 0).all())
    assert bool((masks[0] != masks[1]).any())


def test_the_first_exchange_of_a_full_pool_is_the_best_there_is() -> None:
    """A tolerance just below its gain lets it pass, and one just above lets nothing pass."""
    inputs, weight = correlated_inputs(40, 10), random_weight(20, 10)
    gram, one = gram_of(inputs), layer(weight, inputs)
    start = one.lowest_scores()
    gains = torch.tensor([-best_exchange(*pair, gram, None) for pair in zip(weight, start, strict=True)])
    shares = gains / errors(weight, weight * ~start, gram)
    assert int((gains > 0).sum()) > 5
    for row, share in enumerate(shares.tolist()):
        for tolerance, passes in ((share * 0.999, share > 0), (share * 1.001 + 1e-5, False)):
            end = Swap(1, 10, 0, 0, tolerance).select(one)
            assert bool((end[row] != start[row]).any()) == passes


@PROPERTY
@given(data=st.data(), pattern=st.sampled_from([UNSTRUCTURED, NOfM(2, 4), NOfM(1, 3)]), pool=st.sampled_from([1, 3, 9]))
def test_counts_are_kept_and_no_row_gets_worse(data: st.DataObject, pattern: Pattern, pool: int) -> None:
    weight, inputs = data.draw(matrices(pattern.cell or 1))
    one = layer(weight, inputs, pattern, 0.5 if pattern is UNSTRUCTURED else pattern.fixed_sparsity() or 0)
    before, after = one.lowest_scores(), Swap(pool=pool, shrinkage=0).select(one)
    assert torch.equal(zeros_of_groups(after, one.budget), zeros_of_groups(before, one.budget))
    assert bool(after[weight == 0].all())
    gram = gram_of(inputs.double())
    scale = ((weight * before).double().square() * gram.diagonal()).sum(dim=1)
    rise = errors(weight, weight * ~after, gram) - errors(weight, weight * ~before, gram)
    assert bool((rise <= 1e-6 * scale).all())


@every_pattern
def test_fully_shrunk_it_is_wanda(pattern: Pattern) -> None:
    """Without correlations the weights of least energy are the best to prune, and those are Wanda's."""
    inputs, weight = correlated_inputs(60, 24), random_weight(6, 24)
    one = layer(weight, inputs, pattern)
    assert torch.equal(Swap(shrinkage=1).select(one), one.lowest_scores())


def test_weights_of_silent_inputs_are_pruned_before_others() -> None:
    """Under scores that see them last."""
    inputs, weight = torch.eye(16), random_weight(6, 16)
    silent = [1, 2, 9, 14]
    inputs[:, silent] = 0
    one = layer(weight, inputs, sparsity=0.25)
    scores = torch.ones_like(weight)
    scores[:, silent] = 2
    found = PLAIN.select(type(one)(weight, one.statistics, one.budget, scores))
    assert bool(found[:, silent].all())
    assert int(found.sum()) == 24


def test_few_exchanges_halve_the_error_where_inputs_correlate() -> None:
    inputs, weight = correlated_inputs(500, 64), random_weight(32, 64)
    one, gram = layer(weight, inputs), gram_of(inputs)
    before, after = (errors(weight, weight * ~mask, gram).sum() for mask in (one.lowest_scores(), Swap().select(one)))
    assert after < 0.6 * before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refined_as_the_same_values_in_single(dtype: torch.dtype) -> None:
    inputs, weight = correlated_inputs(60, 24), random_weight(6, 24).to(dtype)
    assert torch.equal(PLAIN.select(layer(weight, inputs)), PLAIN.select(layer(weight.float(), inputs)))


@pytest.mark.parametrize("sparsity", [0.0, 0.99])
def test_a_single_weight_and_rows_without_a_choice_are_left_as_they_are(sparsity: float) -> None:
    for weight in (torch.ones(1, 1), torch.zeros(3, 4), torch.ones(2, 1)):
        one = layer(weight, torch.ones(2, weight.shape[1]), sparsity=sparsity)
        assert torch.equal(Swap().select(one), one.lowest_scores())


def test_rows_are_refined_alike_however_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    one = layer(random_weight(40, 24), correlated_inputs(60, 24))
    together = Swap().select(one)
    monkeypatch.setattr("mwanda.solvers.swap.rows_at_once", lambda weight: 3)
    monkeypatch.setattr("mwanda.solvers.swap.AT_ONCE", 1)
    assert torch.equal(Swap().select(one), together)
