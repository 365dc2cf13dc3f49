"""SparseGPT against optimal brain surgery written plainly: the inverse of what remains, anew for each column."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from layers import PATTERNS, UNSTRUCTURED, correlated_inputs, layer, matrices, random_weight, statistics_of
from pruning_oracle import capture, every_order
from selection import chosen, planned
from tiny_models import tiny_calibration, tiny_model
from torch import Tensor, nn

from mwanda.criteria.base import BringsSolver, Criterion
from mwanda.criteria.magnitude import Magnitude
from mwanda.criteria.sparsegpt import SparseGPT as SparseGPTCriterion
from mwanda.criteria.wanda import Wanda
from mwanda.models import blocks_of
from mwanda.patterns import Pattern
from mwanda.patterns.n_of_m import NOfM
from mwanda.pruner import Pruner
from mwanda.pruner.engine import Order
from mwanda.schedules.owl_cwl import OWLCWL
from mwanda.schedules.uniform import Uniform
from mwanda.solvers import Budget, Layer, Solver, WeightSolver, sparsegpt
from mwanda.solvers.gram import Shared, gram_of
from mwanda.solvers.sparsegpt import SparseGPT, by_loss, feedback


PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)

every_pattern = pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)


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
    solver: SparseGPT, weight: Tensor, inputs: Tensor, pattern: Pattern, sparsity: float
) -> Float[Tensor, "out in"]:
    """Return what the pruner would make of a matrix."""
    return solver.solve(layer(weight, inputs, pattern, sparsity, "matrix"))


def error(before: Tensor, after: Tensor, inputs: Tensor) -> float:
    """Return how far the outputs of a layer have moved, in all."""
    return float((inputs.double() @ (after.double() - before.double()).T).square().sum())


def test_it_keeps_the_protocols() -> None:
    assert isinstance(SparseGPT(), Solver)
    assert isinstance(SparseGPT(), WeightSolver)
    assert isinstance(SparseGPTCriterion(), Criterion)
    assert isinstance(SparseGPTCriterion(), BringsSolver)
    assert not isinstance(Wanda(), BringsSolver)


def test_the_criterion_brings_the_solver_with_its_settings() -> None:
    assert SparseGPTCriterion(0.1, 32).solver == SparseGPT(0.1, 32)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("columns", [1, 5, 8, 128])
def test_unstructured_weights_are_those_of_optimal_brain_surgery(columns: int, sparsity: float, seed: int) -> None:
    inputs, weight = correlated_inputs(60, 16, seed), random_weight(6, 16, seed)
    found = reconstruct(SparseGPT(columns=columns), weight, inputs, UNSTRUCTURED, sparsity)
    expected = surgery(weight, inputs, UNSTRUCTURED, sparsity, columns)
    assert torch.equal(found == 0, expected == 0)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("columns", [1, 6, 16, 128])
@pytest.mark.parametrize("pattern", [NOfM(2, 4), NOfM(4, 8)], ids=["2of4", "4of8"])
def test_grouped_weights_are_those_of_optimal_brain_surgery(pattern: NOfM, columns: int, seed: int) -> None:
    """How many columns are decided together is of no matter: a group is decided when its turn comes."""
    inputs, weight = correlated_inputs(60, 24, seed), random_weight(6, 24, seed)
    found = reconstruct(SparseGPT(columns=columns), weight, inputs, pattern, 0.5)
    expected = surgery(weight, inputs, pattern, 0.5)
    assert torch.equal(found == 0, expected == 0)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4)


def test_fewer_tokens_than_inputs_are_enough() -> None:
    inputs, weight = correlated_inputs(5, 16), random_weight(6, 16)
    found = reconstruct(SparseGPT(0.1), weight, inputs, UNSTRUCTURED, 0.5)
    expected = surgery(weight, inputs, UNSTRUCTURED, 0.5, damping=0.1)
    assert torch.equal(found == 0, expected == 0)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("sizes", [[], [16], [1] * 16, [5, 5, 5, 1], [4, 4, 4, 4]], ids=str)
def test_feedback_is_that_of_the_damped_moments(sizes: list[int]) -> None:
    inputs = correlated_inputs(60, 16)
    found = feedback(SparseGPT().hessian(gram_of(statistics_of(inputs))), sizes).double()
    assert torch.equal(found, found.triu())
    diagonal, unit = found.diagonal().clone(), found.triu(1) + torch.eye(16)
    for block in torch.arange(16).split(sizes) if sizes else ():
        own = slice(int(block[0]), int(block[-1]) + 1)
        unit[own, own] = unit[own, own].inverse()
    root = unit * diagonal
    torch.testing.assert_close(root @ root.T, hessian_of(inputs), rtol=1e-5, atol=1e-5)


def test_a_block_behind_others_is_scored_as_if_it_lost_nothing() -> None:
    """Its columns make up for each other's adjustments before any of them is pruned; the last one shows it."""
    inputs, weight = correlated_inputs(60, 12, 3), random_weight(1, 12, 3)
    budget = Budget(planned=6, prune_per_group=6, group="matrix")
    found = SparseGPT(columns=6).solve(Layer(weight, statistics_of(inputs), budget))
    first = found[0, :6] == 0
    hessian, kept = hessian_of(inputs), weight.double().clone()
    for column in range(6):
        if first[column]:
            inverse = torch.linalg.inv(hessian[column:, column:])
            kept[:, column:] -= kept[:, column] / inverse[0, 0] * inverse[0]
            kept[:, column] = 0
    curvature = torch.stack([torch.linalg.inv(hessian[each:, each:])[0, 0] for each in range(6, 12)])
    lowest = (kept[0, 6:].square() / curvature).argsort()[: 6 - int(first.sum())]
    assert sorted(lowest.tolist()) == (found[0, 6:] == 0).nonzero().flatten().tolist()


def test_scores_are_those_of_the_formula() -> None:
    inputs, weight = correlated_inputs(60, 16), random_weight(6, 16)
    inputs[:, 5] = 0
    hessian = hessian_of(inputs)
    for column in range(16):
        curvature = torch.linalg.inv(hessian[column:, column:])[0, 0] if column != 5 else torch.inf
        expected = weight[:, column].double().square() / curvature
        found = SparseGPTCriterion().score(weight, statistics_of(inputs))[:, column].double()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


def test_languages_are_pooled() -> None:
    inputs, weight = correlated_inputs(60, 16), random_weight(6, 16)
    budget = layer(weight, inputs, group="matrix").budget
    alone, divided = (
        SparseGPT().solve(Layer(weight, statistics_of(inputs, languages), budget)) for languages in (1, 3)
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
    criterion, wanda = SparseGPTCriterion(damping=1e-9), Wanda().score(weight, statistics)
    torch.testing.assert_close(criterion.score(weight, statistics).sqrt(), wanda, rtol=1e-5, atol=0)
    found = reconstruct(criterion.solver, weight, inputs, UNSTRUCTURED, sparsity)
    mask = chosen(UNSTRUCTURED, wanda, sparsity, "matrix")
    assert torch.equal(found, weight.masked_fill(mask, 0))


@every_pattern
@pytest.mark.parametrize("seed", range(5))
def test_adjusting_leaves_less_error_than_the_same_mask_without(pattern: Pattern, seed: int) -> None:
    inputs, weight = correlated_inputs(100, 32, seed), random_weight(8, 32, seed)
    statistics = statistics_of(inputs)
    found = reconstruct(SparseGPT(columns=16), weight, inputs, pattern, 0.5)
    adjusted = error(weight, found, inputs)
    assert adjusted < 0.7 * error(weight, weight.masked_fill(found == 0, 0), inputs)
    mask = chosen(pattern, Wanda().score(weight, statistics), 0.5, "row")
    assert adjusted < 0.9 * error(weight, weight.masked_fill(mask, 0), inputs)


@PROPERTY
@given(
    example=matrices(),
    sparsity=st.floats(0, 0.99),
    columns=st.sampled_from([1, 3, 7, 128]),
    order=st.sampled_from(["given", "loss"]),
)
def test_zeros_are_exactly_those_planned(
    example: tuple[Tensor, Tensor], sparsity: float, columns: int, order: Any
) -> None:
    weight, inputs = example
    found = reconstruct(SparseGPT(columns=columns, column_order=order), weight, inputs, UNSTRUCTURED, sparsity)
    if int((weight == 0).sum()) <= int(sparsity * weight.numel()):
        assert int((found == 0).sum()) == planned(UNSTRUCTURED, weight == 0, sparsity, "matrix")
    assert bool(torch.isfinite(found).all())
    assert bool((found[weight == 0] == 0).all())
    assert found.dtype == torch.float32


@PROPERTY
@given(
    data=st.data(),
    pattern=st.sampled_from([NOfM(2, 4), NOfM(4, 8), NOfM(1, 3)]),
    columns=st.sampled_from([1, 9]),
    order=st.sampled_from(["given", "loss"]),
)
def test_zeros_of_groups_are_exactly_those_planned(
    data: st.DataObject, pattern: NOfM, columns: int, order: Any
) -> None:
    weight, inputs = data.draw(matrices(pattern.of))
    found = reconstruct(SparseGPT(columns=columns, column_order=order), weight, inputs, pattern, 0.5)
    before, after = ((part == 0).view(-1, pattern.of).sum(dim=1) for part in (weight, found))
    assert torch.equal(after, before.clamp(min=pattern.of - pattern.keep))
    assert int(after.sum()) == planned(pattern, weight == 0, 0.5, "matrix")
    assert bool((found[weight == 0] == 0).all())


def test_a_kept_weight_that_is_adjusted_to_zero_still_counts_as_kept() -> None:
    """Among billions of weights some are cancelled exactly; the audit would stop the run for one zero too many."""
    statistics = statistics_of(correlated_inputs(9, 2, seed=1) * torch.tensor([1.0, 0.1]))
    cancelled = feedback(SparseGPT().hessian(gram_of(statistics)), [2])[0, 1]
    budget = Budget(planned=1, prune_per_group=1, group="matrix")
    found = SparseGPT().solve(Layer(torch.tensor([[1.0, cancelled]]), statistics, budget))
    assert found[0, 0] == 0
    assert 0 < found[0, 1] < 1e-30


def test_zeros_that_are_there_count_wherever_they_are() -> None:
    """All in the last columns, or all in the first: both leave the budget of the whole matrix as it is."""
    inputs, weight = correlated_inputs(60, 20), random_weight(6, 20)
    for block in (slice(0, 8), slice(12, 20), slice(6, 14)):
        some = weight.clone()
        some[:, block] = 0
        found = reconstruct(SparseGPT(columns=8), some, inputs, UNSTRUCTURED, 0.5)
        assert int((found == 0).sum()) == 60
        assert bool((found[:, block] == 0).all())


def test_weights_of_silent_inputs_go_first_and_change_nothing() -> None:
    inputs, weight = correlated_inputs(60, 16), random_weight(6, 16)
    silent = [1, 2, 9, 14]
    inputs[:, silent] = 0
    found = reconstruct(SparseGPT(), weight, inputs, UNSTRUCTURED, 0.25)
    assert bool((found[:, silent] == 0).all())
    others = [column for column in range(16) if column not in silent]
    assert torch.equal(found[:, others], weight[:, others])


def test_inputs_that_are_all_silent_give_some_mask_of_the_right_size() -> None:
    weight = random_weight(4, 8)
    found = reconstruct(SparseGPT(), weight, torch.zeros(5, 8), UNSTRUCTURED, 0.5)
    assert int((found == 0).sum()) == 16
    assert torch.equal(found[found != 0], weight[found != 0])


def test_the_weight_is_left_alone() -> None:
    weight = random_weight(4, 8)
    before = weight.clone()
    reconstruct(SparseGPT(), weight, correlated_inputs(9, 8), UNSTRUCTURED, 0.5)
    assert torch.equal(weight, before)


@pytest.mark.parametrize("seed", range(2))
def test_the_order_by_loss_is_surgery_on_reordered_columns(seed: int) -> None:
    inputs, weight = correlated_inputs(60, 20, seed), random_weight(6, 20, seed)
    solver = SparseGPT(columns=8, column_order="loss")
    scores = solver.scores(weight, inputs.T @ inputs)
    losses = (scores * (scores <= scores.flatten().kthvalue(60).values)).sum(dim=0).tolist()
    blocks = [
        sorted(columns, key=lambda column: -losses[column]) for columns in (range(8), range(8, 16), range(16, 20))
    ]
    blocks.sort(key=lambda columns: -sum(losses[column] for column in columns))
    found = reconstruct(solver, weight, inputs, UNSTRUCTURED, 0.5)
    order = [column for columns in blocks for column in columns]
    assert order != list(range(20))
    assert len(blocks[-1]) == 4  # so that blocks of the plain surgery are those of the solver
    expected = surgery(weight[:, order], inputs[:, order], UNSTRUCTURED, 0.5, 8)
    assert torch.equal(found[:, order] == 0, expected == 0)
    torch.testing.assert_close(found[:, order].double(), expected, rtol=1e-3, atol=1e-4)


def test_cells_stay_together_when_columns_are_reordered() -> None:
    losses = torch.tensor([1.0, 0.0, 0.5, 0.7, 9.0, 0.0, 0.0, 0.1])
    blocks = by_loss(losses, list(torch.arange(8).split(4)), cell=2)
    assert [block.tolist() for block in blocks] == [[4, 5, 6, 7], [2, 3, 0, 1]]
    assert [block.tolist() for block in by_loss(losses, list(torch.arange(8).split(4)), 1)] == [
        [4, 7, 5, 6],
        [0, 3, 2, 1],
    ]


@pytest.mark.parametrize("pattern", [NOfM(2, 4), NOfM(4, 8)], ids=["2of4", "4of8"])
def test_reordered_columns_keep_the_cells_of_a_pattern(pattern: NOfM) -> None:
    inputs, weight = correlated_inputs(60, 24), random_weight(6, 24)
    found = reconstruct(SparseGPT(columns=8, column_order="loss"), weight, inputs, pattern, 0.5)
    zeros = (found == 0).view(-1, pattern.of).sum(dim=1)
    assert set(zeros.tolist()) == {pattern.of - pattern.keep}


def test_shrunk_to_the_diagonal_nothing_is_adjusted() -> None:
    inputs, weight = correlated_inputs(60, 16), random_weight(6, 16)
    found = reconstruct(SparseGPT(shrinkage=1), weight, inputs, UNSTRUCTURED, 0.5)
    torch.testing.assert_close(found, weight.masked_fill(found == 0, 0))


CALIBRATION = tiny_calibration(languages=3, sequences=(3, 2, 4), length=20)


def prune(
    model: nn.Module, order: Order, pattern: Pattern, criterion: Criterion | None = None, batch_size: int = 4
) -> None:
    pruner = Pruner(order, batch_size)
    pruner.prune(model, CALIBRATION, criterion or SparseGPTCriterion(columns=8), Uniform(), pattern, 0.5)


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
    report = pruner.prune(model, CALIBRATION, SparseGPTCriterion(), OWLCWL(2.0), UNSTRUCTURED, 0.6)
    assert all(bool((value == 0)[before[name]].all()) for name, value in model.state_dict().items())
    size = sum(plan.shape[0] * plan.shape[1] for plan in report.plans)
    assert 0 <= 0.6 * size - sum(plan.zeros for plan in report.plans) < len(report.plans)


@every_order
def test_outputs_move_less_than_under_wanda(order: Order) -> None:
    dense = tiny_model("llama")
    tokens = torch.cat(CALIBRATION.sequences)
    moved = []
    for criterion in (SparseGPTCriterion(), Wanda()):
        model = copy.deepcopy(dense)
        prune(model, order, UNSTRUCTURED, criterion)
        with torch.no_grad():
            moved.append(float((model(tokens).logits - dense(tokens).logits).square().mean()))
    assert moved[0] < moved[1]


def test_matrices_with_the_same_inputs_share_one_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Query, key and value; also where each of them has its own sums of the same inputs."""
    made, own = [], sparsegpt.feedback

    def counted(hessian: Tensor, sizes: Sequence[int]) -> Tensor:
        made.append(hessian)
        return own(hessian, sizes)

    monkeypatch.setattr(sparsegpt, "feedback", counted)
    inputs, shared = correlated_inputs(60, 8), Shared()
    for number, (text, expected) in enumerate([(inputs, 1), (inputs.clone(), 1), (inputs * 2, 2), (inputs, 3)]):
        each = layer(random_weight(4, 8, number), text)
        found = SparseGPT().solve(replace(each, shared=shared))
        assert len(made) == expected
        assert found.equal(SparseGPT().solve(each))
        made.pop()
    SparseGPT(damping=0.1).solve(replace(layer(random_weight(4, 8), inputs), shared=shared))
    assert len(made) == 4


def test_weights_that_are_stored_transposed_are_walked_through_in_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel takes rows in one piece; what GPT-2 stores the other way round would go the slow way."""
    strides, own = set(), sparsegpt.adjust

    def seen(values: Tensor, *others: Any) -> None:
        strides.add(values.stride(1))
        own(values, *others)

    monkeypatch.setattr(sparsegpt, "adjust", seen)
    weight, inputs = random_weight(6, 16), correlated_inputs(60, 16)
    found = reconstruct(SparseGPT(columns=4), weight.T.contiguous().T, inputs, UNSTRUCTURED, 0.5)
    assert found.equal(reconstruct(SparseGPT(columns=4), weight, inputs, UNSTRUCTURED, 0.5))
    assert strides == {1}
