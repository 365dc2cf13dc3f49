"""SparseGPT against optimal brain surgery written plainly: the inverse of what remains, anew for each column."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jaxtyping import Float
from pruning_oracle import capture, every_order
from selection import chosen, planned, quota
from tiny_models import tiny_calibration, tiny_model
from torch import Tensor, nn

from mwanda.criteria.base import Criterion, Reconstruction
from mwanda.criteria.magnitude import Magnitude
from mwanda.criteria.sparsegpt import SparseGPT, inverse_factor
from mwanda.criteria.wanda import Wanda
from mwanda.models import blocks_of
from mwanda.patterns import Pattern
from mwanda.patterns.n_of_m import NOfM
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner
from mwanda.pruner.engine import Order
from mwanda.schedules.owl_cwl import OWLCWL
from mwanda.schedules.uniform import Uniform
from mwanda.statistics import LanguageStatistics, Needs, SequenceSums


PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)
UNSTRUCTURED = Unstructured()
PATTERNS: dict[str, Pattern] = {"unstructured": UNSTRUCTURED, "2of4": NOfM(2, 4), "4of8": NOfM(4, 8)}

every_pattern = pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)


def statistics_of(inputs: Float[Tensor, "N in"], languages: int = 1) -> LanguageStatistics:
    """Return the statistics of inputs, which are divided into languages of one size."""
    statistics = LanguageStatistics.zeros(languages, inputs.shape[1], needs=Needs.SECOND_MOMENTS)
    for language, part in enumerate(inputs.chunk(languages)):
        statistics.add(SequenceSums.of(part[None], Needs.SECOND_MOMENTS), torch.tensor([language]))
    return statistics


def correlated_inputs(tokens: int, features: int, seed: int = 0) -> Float[Tensor, "N in"]:
    """Return inputs that say much about each other."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, max(1, features // 2), generator=generator)
    mixing = torch.randn(hidden.shape[1], features, generator=generator)
    return hidden @ mixing + 0.3 * torch.randn(tokens, features, generator=generator)


def random_weight(rows: int, features: int, seed: int = 0) -> Float[Tensor, "out in"]:
    return torch.randn(rows, features, generator=torch.Generator().manual_seed(1000 + seed))


def hessian_of(inputs: Float[Tensor, "N in"], damping: float = 0.01) -> Float[Tensor, "in in"]:
    values = inputs.double()
    hessian = values.T @ values
    diagonal = hessian.diagonal().clone()
    return hessian + torch.diag(damping * diagonal.mean() + (diagonal == 0).double())


def surgery(
    weight: Tensor, inputs: Tensor, pattern: Pattern, sparsity: float, columns: int = 128, damping: float = 0.01
) -> Float[Tensor, "out in"]:
    """Remove and adjust column by column.

    Blocks of columns share what is to go in proportion to their width; no weight may be zero beforehand.
    """
    values, hessian = weight.double().clone(), hessian_of(inputs, damping)
    rows, features = values.shape
    cell = pattern.of if isinstance(pattern, NOfM) else None
    left = int(sparsity * values.numel())
    gone = torch.zeros_like(values, dtype=torch.bool)
    inverses = [torch.linalg.inv(hessian[column:, column:]) for column in range(features)]
    curvature = torch.stack([inverse[0, 0] for inverse in inverses])
    width = cell or columns
    for first in range(0, features, width):
        last = min(first + width, features)
        scores = values[:, first:last].square() / curvature[first:last]
        scores[:, inputs[:, first:last].square().sum(dim=0) == 0] = 0
        if cell is None:
            count = left * (last - first) // (features - first)
            left -= count
            marked = torch.zeros(rows * (last - first), dtype=torch.bool)
            marked[scores.flatten().argsort(stable=True)[:count]] = True
            gone[:, first:last] = marked.view(rows, -1)
        else:
            for row, order in enumerate(scores.argsort(dim=1, stable=True)[:, : cell // 2].tolist()):
                gone[row, [first + place for place in order]] = True
        for column in range(first, last):
            for row in range(rows):
                if gone[row, column]:
                    inverse = inverses[column]
                    values[row, column:] -= values[row, column] / inverse[0, 0] * inverse[0]
                    values[row, column] = 0
    return values


def reconstruct(
    criterion: SparseGPT, weight: Tensor, statistics: LanguageStatistics, pattern: Pattern, sparsity: float
) -> Float[Tensor, "out in"]:
    """Return what the pruner would make of a matrix."""
    share = quota(pattern, weight == 0, sparsity, "matrix")
    return criterion.reconstruct(weight, statistics, share.planned, pattern.cell, share.prune_per_group)


def error(before: Tensor, after: Tensor, inputs: Tensor) -> float:
    """Return how far the outputs of a layer have moved, in all."""
    return float((inputs.double() @ (after.double() - before.double()).T).square().sum())


def test_it_keeps_the_protocols() -> None:
    assert isinstance(SparseGPT(), Reconstruction)
    assert isinstance(SparseGPT(), Criterion)
    assert not isinstance(Wanda(), Reconstruction)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("columns", [1, 5, 8, 128])
def test_unstructured_weights_are_those_of_optimal_brain_surgery(columns: int, sparsity: float, seed: int) -> None:
    inputs, weight = correlated_inputs(60, 16, seed), random_weight(6, 16, seed)
    found = reconstruct(SparseGPT(columns=columns), weight, statistics_of(inputs), UNSTRUCTURED, sparsity)
    expected = surgery(weight, inputs, UNSTRUCTURED, sparsity, columns)
    assert torch.equal(found == 0, expected == 0)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("columns", [1, 6, 16, 128])
@pytest.mark.parametrize("pattern", [NOfM(2, 4), NOfM(4, 8)], ids=["2of4", "4of8"])
def test_grouped_weights_are_those_of_optimal_brain_surgery(pattern: NOfM, columns: int, seed: int) -> None:
    """How many columns are decided together is of no matter: a group is decided when its turn comes."""
    inputs, weight = correlated_inputs(60, 24, seed), random_weight(6, 24, seed)
    found = reconstruct(SparseGPT(columns=columns), weight, statistics_of(inputs), pattern, 0.5)
    expected = surgery(weight, inputs, pattern, 0.5)
    assert torch.equal(found == 0, expected == 0)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4)


def test_fewer_tokens_than_inputs_are_enough() -> None:
    inputs, weight = correlated_inputs(5, 16), random_weight(6, 16)
    found = reconstruct(SparseGPT(0.1), weight, statistics_of(inputs), UNSTRUCTURED, 0.5)
    expected = surgery(weight, inputs, UNSTRUCTURED, 0.5, damping=0.1)
    assert torch.equal(found == 0, expected == 0)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4)


def test_the_factor_is_that_of_the_damped_inverse() -> None:
    inputs = correlated_inputs(60, 16)
    moment = statistics_of(inputs).second_moment
    assert moment is not None
    factor = inverse_factor(moment, 0.01).double()
    assert torch.equal(factor, factor.triu())
    torch.testing.assert_close(factor.T @ factor, torch.linalg.inv(hessian_of(inputs)), rtol=1e-4, atol=1e-6)


def test_scores_are_those_of_the_formula() -> None:
    inputs, weight = correlated_inputs(60, 16), random_weight(6, 16)
    inputs[:, 5] = 0
    hessian = hessian_of(inputs)
    for column in range(16):
        curvature = torch.linalg.inv(hessian[column:, column:])[0, 0] if column != 5 else torch.inf
        expected = weight[:, column].double().square() / curvature
        found = SparseGPT().score(weight, statistics_of(inputs))[:, column].double()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


def test_languages_are_pooled() -> None:
    inputs, weight = correlated_inputs(60, 16), random_weight(6, 16)
    alone, divided = (
        reconstruct(SparseGPT(), weight, statistics_of(inputs, count), UNSTRUCTURED, 0.5) for count in (1, 3)
    )
    torch.testing.assert_close(divided, alone, rtol=1e-3, atol=1e-5)


def independent_inputs(features: int, seed: int = 0) -> Float[Tensor, "N in"]:
    """Return inputs of which only one is active at a time, so that they do not correlate."""
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([torch.diag(torch.rand(features, generator=generator) + 0.1) for _ in range(3)])


@PROPERTY
@given(seed=st.integers(0, 1000), features=st.integers(1, 12), sparsity=st.floats(0, 0.99))
def test_with_independent_inputs_and_no_damping_it_removes_what_wanda_does(
    seed: int, features: int, sparsity: float
) -> None:
    """Wanda is SparseGPT's metric with a diagonal Hessian; then there is nothing to adjust either."""
    weight, inputs = random_weight(4, features, seed), independent_inputs(features, seed)
    statistics = statistics_of(inputs)
    criterion, wanda = SparseGPT(damping=1e-9), Wanda().score(weight, statistics)
    torch.testing.assert_close(criterion.score(weight, statistics).sqrt(), wanda, rtol=1e-5, atol=0)
    found = reconstruct(criterion, weight, statistics, UNSTRUCTURED, sparsity)
    mask = chosen(UNSTRUCTURED, wanda, sparsity, "matrix")
    assert torch.equal(found, weight.masked_fill(mask, 0))


@every_pattern
@pytest.mark.parametrize("seed", range(5))
def test_adjusting_leaves_less_error_than_the_same_mask_without(pattern: Pattern, seed: int) -> None:
    inputs, weight = correlated_inputs(100, 32, seed), random_weight(8, 32, seed)
    statistics = statistics_of(inputs)
    found = reconstruct(SparseGPT(columns=16), weight, statistics, pattern, 0.5)
    adjusted = error(weight, found, inputs)
    assert adjusted < 0.7 * error(weight, weight.masked_fill(found == 0, 0), inputs)
    mask = chosen(pattern, Wanda().score(weight, statistics), 0.5, "row")
    assert adjusted < 0.9 * error(weight, weight.masked_fill(mask, 0), inputs)


@st.composite
def matrices(draw: st.DrawFn, cell: int = 1) -> tuple[Tensor, Tensor]:
    """Draw a weight matrix with zeros anywhere, of any size, and inputs some of which are never active."""
    rows, features, tokens = draw(st.integers(1, 6)), cell * draw(st.integers(1, 20 // cell)), draw(st.integers(1, 8))
    # A narrow choice makes ties and cancellations; 1e-45 is the smallest number that is not zero.
    values = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-45]) | st.floats(-10, 10, width=32)
    weight = torch.from_numpy(draw(arrays("float32", (rows, features), elements=values)))
    inputs = torch.from_numpy(draw(arrays("float32", (tokens, features), elements=values)))
    dead = torch.tensor(draw(st.lists(st.booleans(), min_size=features, max_size=features)))
    silent = torch.tensor(draw(st.lists(st.booleans(), min_size=features, max_size=features)))
    return weight.masked_fill(dead & (draw(st.booleans())), 0), inputs.masked_fill(silent, 0)


@PROPERTY
@given(example=matrices(), sparsity=st.floats(0, 0.99), columns=st.sampled_from([1, 3, 7, 128]))
def test_zeros_are_exactly_those_planned(example: tuple[Tensor, Tensor], sparsity: float, columns: int) -> None:
    weight, inputs = example
    found = reconstruct(SparseGPT(columns=columns), weight, statistics_of(inputs), UNSTRUCTURED, sparsity)
    if int((weight == 0).sum()) <= int(sparsity * weight.numel()):
        assert int((found == 0).sum()) == planned(UNSTRUCTURED, weight == 0, sparsity, "matrix")
    assert bool(torch.isfinite(found).all())
    assert bool((found[weight == 0] == 0).all())
    assert found.dtype == torch.float32


@PROPERTY
@given(data=st.data(), pattern=st.sampled_from([NOfM(2, 4), NOfM(4, 8), NOfM(1, 3)]), columns=st.sampled_from([1, 9]))
def test_zeros_of_groups_are_exactly_those_planned(data: st.DataObject, pattern: NOfM, columns: int) -> None:
    weight, inputs = data.draw(matrices(pattern.of))
    found = reconstruct(SparseGPT(columns=columns), weight, statistics_of(inputs), pattern, 0.5)
    before, after = ((part == 0).view(-1, pattern.of).sum(dim=1) for part in (weight, found))
    assert torch.equal(after, before.clamp(min=pattern.of - pattern.keep))
    assert int(after.sum()) == planned(pattern, weight == 0, 0.5, "matrix")
    assert bool((found[weight == 0] == 0).all())


def test_a_kept_weight_that_is_adjusted_to_zero_still_counts_as_kept() -> None:
    """Among billions of weights some are cancelled exactly; the audit would stop the run for one zero too many."""
    statistics = statistics_of(correlated_inputs(9, 2, seed=1) * torch.tensor([1.0, 0.1]))
    assert statistics.second_moment is not None
    factor = inverse_factor(statistics.second_moment, 0.01)
    cancelled = 1 / factor[0, 0] * factor[0, 1]
    found = SparseGPT().reconstruct(
        torch.tensor([[1.0, cancelled]]), statistics, planned=1, cell=None, prune_per_group=1
    )
    assert found[0, 0] == 0
    assert 0 < found[0, 1] < 1e-30


def test_zeros_that_are_there_count_wherever_they_are() -> None:
    """All in the last columns, or all in the first: both leave the budget of the whole matrix as it is."""
    inputs, weight = correlated_inputs(60, 20), random_weight(6, 20)
    for block in (slice(0, 8), slice(12, 20), slice(6, 14)):
        some = weight.clone()
        some[:, block] = 0
        found = reconstruct(SparseGPT(columns=8), some, statistics_of(inputs), UNSTRUCTURED, 0.5)
        assert int((found == 0).sum()) == 60
        assert bool((found[:, block] == 0).all())


def test_weights_of_silent_inputs_go_first_and_change_nothing() -> None:
    inputs, weight = correlated_inputs(60, 16), random_weight(6, 16)
    silent = [1, 2, 9, 14]
    inputs[:, silent] = 0
    found = reconstruct(SparseGPT(), weight, statistics_of(inputs), UNSTRUCTURED, 0.25)
    assert bool((found[:, silent] == 0).all())
    others = [column for column in range(16) if column not in silent]
    assert torch.equal(found[:, others], weight[:, others])


def test_inputs_that_are_all_silent_give_some_mask_of_the_right_size() -> None:
    weight = random_weight(4, 8)
    found = reconstruct(SparseGPT(), weight, statistics_of(torch.zeros(5, 8)), UNSTRUCTURED, 0.5)
    assert int((found == 0).sum()) == 16
    assert torch.equal(found[found != 0], weight[found != 0])


def test_the_weight_is_left_alone() -> None:
    weight = random_weight(4, 8)
    before = weight.clone()
    reconstruct(SparseGPT(), weight, statistics_of(correlated_inputs(9, 8)), UNSTRUCTURED, 0.5)
    assert torch.equal(weight, before)


CALIBRATION = tiny_calibration(languages=3, sequences=(3, 2, 4), length=20)


def prune(
    model: nn.Module, order: Order, pattern: Pattern, criterion: Criterion | None = None, batch_size: int = 4
) -> None:
    pruner = Pruner(order, batch_size)
    pruner.prune(model, CALIBRATION, criterion or SparseGPT(columns=8), Uniform(), pattern, 0.5)


def weight_as_seen(model: nn.Module, name: str) -> Float[Tensor, "out in"]:
    """Return a matrix as out × in, GPT-2's too."""
    module = model.get_submodule(name)
    weight = module.get_parameter("weight").data
    return weight if isinstance(module, nn.Linear) else weight.T


def prune_plainly(model: nn.Module, blocks: Sequence[Sequence[str]], order: Order, pattern: Pattern) -> None:
    """Prune in place by running the model anew for each step of the order."""
    every = [name for names in blocks for name in names]
    steps: dict[str, list[Any]] = {
        "oneshot": [every],
        "block": list(blocks),
        "arrival": [[name] for name in capture(model, every, CALIBRATION)],
    }
    for names in steps[order]:
        for name, inputs in capture(model, list(names), CALIBRATION).items():
            weight = weight_as_seen(model, name)
            weight.copy_(surgery(weight, torch.cat(inputs), pattern, 0.5, columns=8))


@every_order
@every_pattern
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_model_is_pruned_as_by_plain_surgery(family: str, pattern: Pattern, order: Order) -> None:
    model = tiny_model(family, dtype=torch.float64, **({"num_hidden_layers": 2} if family == "llama" else {}))
    expected, dense = copy.deepcopy(model), copy.deepcopy(model)
    blocks = [[matrix.name for matrix in block.matrices] for block in blocks_of(model)]
    prune_plainly(expected, blocks, order, pattern)
    prune(model, order, pattern)
    matrices_of = {f"{name}.weight" for names in blocks for name in names}
    for name, value in model.state_dict().items():
        if name in matrices_of:
            torch.testing.assert_close(value, expected.state_dict()[name], rtol=1e-2, atol=1e-3)
            assert torch.equal(value == 0, expected.state_dict()[name] == 0)
        else:
            assert torch.equal(value, dense.state_dict()[name])


@every_order
@every_pattern
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_counts_are_exact_in_every_precision(family: str, dtype: torch.dtype, pattern: Pattern, order: Order) -> None:
    """The audit of the pruner compares every matrix with its plan."""
    model = tiny_model(family, dtype=dtype)
    prune(model, order, pattern)
    for matrix in [matrix for block in blocks_of(model) for matrix in block.matrices]:
        assert matrix.weight.dtype == dtype
        zeros = (matrix.weight == 0).reshape(-1, pattern.cell or matrix.weight.numel())
        assert bool((zeros.sum(dim=1) * 2 == zeros.shape[1]).all())


@every_order
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_too_small_for_their_precision_are_not_lost(dtype: torch.dtype, order: Order) -> None:
    """A kept weight that would be rounded to zero would be one zero more than planned."""
    model = tiny_model("llama", dtype=dtype)
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    for matrix in [matrix for block in blocks_of(model) for matrix in block.matrices]:
        matrix.weight.copy_(matrix.weight.sign() * smallest)
    prune(model, order, UNSTRUCTURED)
    for matrix in [matrix for block in blocks_of(model) for matrix in block.matrices]:
        assert int((matrix.weight == 0).sum()) * 2 == matrix.weight.numel()


@every_order
def test_zeros_that_are_there_stay_in_a_pruned_model(order: Order) -> None:
    model = tiny_model("gpt2")
    prune(model, "oneshot", UNSTRUCTURED, Magnitude("row"))
    before = {name: value == 0 for name, value in model.state_dict().items()}
    pruner = Pruner(order, 4)
    report = pruner.prune(model, CALIBRATION, SparseGPT(), OWLCWL(2.0), UNSTRUCTURED, 0.6)
    assert all(bool((value == 0)[before[name]].all()) for name, value in model.state_dict().items())
    size = sum(plan.shape[0] * plan.shape[1] for plan in report.plans)
    assert 0 <= 0.6 * size - sum(plan.zeros for plan in report.plans) < len(report.plans)


@every_order
def test_outputs_move_less_than_under_wanda(order: Order) -> None:
    dense = tiny_model("llama")
    tokens = torch.cat(CALIBRATION.sequences)
    moved = []
    for criterion in (SparseGPT(), Wanda()):
        model = copy.deepcopy(dense)
        prune(model, order, UNSTRUCTURED, criterion)
        with torch.no_grad():
            moved.append(float((model(tokens).logits - dense(tokens).logits).square().mean()))
    assert moved[0] < moved[1]
