"""A pruned model is what each solver makes of each matrix's inputs, captured by plain forward passes."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from layers import PATTERNS
from pruning_oracle import Inputs, capture, every_order, weight_of
from selection import quota
from tiny_models import tiny_calibration, tiny_model
from torch import Tensor, nn

from mwanda.criteria import Criterion
from mwanda.criteria.magnitude import Magnitude
from mwanda.criteria.mwanda import MWanda
from mwanda.criteria.sparsegpt import SparseGPT as SparseGPTCriterion
from mwanda.criteria.wanda import Wanda
from mwanda.errors import ConfigurationError
from mwanda.models import blocks_of
from mwanda.patterns import Pattern
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner
from mwanda.pruner.engine import Order
from mwanda.pruner.method import Method
from mwanda.schedules.uniform import Uniform
from mwanda.solvers import Budget, Layer, Solver, WeightSolver
from mwanda.solvers.admm import ADMM
from mwanda.solvers.dsnot import DSnoT
from mwanda.solvers.sparsegpt import SparseGPT
from mwanda.solvers.swap import Swap
from mwanda.solvers.threshold import Threshold
from mwanda.statistics import LanguageStatistics, LanguageWeights, Needs, SequenceSums, second_moment


CALIBRATION = tiny_calibration(languages=3, sequences=(3, 2, 4), length=20)
SOLVERS: dict[str, Solver] = {
    "swap": Swap(shrinkage=0.2),
    "dsnot": DSnoT(),
    "sparsegpt": SparseGPT(columns=8, column_order="loss"),
    "admm": ADMM(rounds=6, mask_rounds=4),
    "admm of scores": ADMM(rounds=6, mask="scores"),
}
WEIGHTS = {
    "uniform": LanguageWeights(),
    "given": LanguageWeights((1.0, 4.0, 0.5)),
    "balanced": LanguageWeights(balanced=True),
}
ALL = Needs.COUNTS | Needs.SECOND_MOMENTS | Needs.MEANS

every_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
every_weighting = pytest.mark.parametrize("weighting", WEIGHTS.values(), ids=WEIGHTS)


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have second moments multiplied out in several blocks of features, of which one half is filled in at the end."""
    monkeypatch.setattr(second_moment, "BLOCK", 4)


def statistics_of(inputs: Inputs, weighting: LanguageWeights) -> LanguageStatistics:
    """Return the statistics of all inputs at once, with second moments that are weighted from the outside."""
    statistics = LanguageStatistics.zeros(len(inputs), inputs[0].shape[1], needs=ALL, weighting=weighting)
    for language, part in enumerate(inputs):
        if len(part):
            statistics.add(SequenceSums.of(part[None], Needs.COUNTS | Needs.MEANS), torch.tensor([language]))
    moments = [part.float().T @ part.float() for part in inputs]
    traces = [max(float(moment.diagonal().mean()), 1e-30) if weighting.balanced else 1.0 for moment in moments]
    given = weighting.given or [1.0] * len(inputs)
    second = [moment * (weight / trace) for moment, weight, trace in zip(moments, given, traces, strict=True)]
    return replace(statistics, second_moment=torch.stack(second).sum(dim=0))


def solve(
    weight: Tensor,
    inputs: Inputs,
    solver: Solver,
    weighting: LanguageWeights,
    pattern: Pattern,
    criterion: Criterion | None = None,
) -> Tensor:
    """Return what becomes of one matrix at half sparsity."""
    method = Method.of(criterion or Wanda(), solver)
    share = quota(pattern, weight == 0, 0.5, method.group)
    budget = Budget(share.planned, share.prune_per_group, pattern.cell, method.group)
    statistics = statistics_of(inputs, weighting)
    scores = method.criterion.score(weight, statistics) if solver.takes_scores else None
    layer = Layer(weight.clone(), statistics, budget, scores)
    if isinstance(solver, WeightSolver):
        return solver.solve(layer).to(weight.dtype)
    return weight.masked_fill(solver.select(layer), 0)  # type: ignore[attr-defined]


def names_of(model: nn.Module) -> list[list[str]]:
    return [[matrix.name for matrix in block.matrices] for block in blocks_of(model)]


def prune_plainly(
    model: nn.Module, order: Order, solver: Solver, weighting: LanguageWeights, pattern: Pattern, fewest: int = 0
) -> None:
    """Prune in place by running the model anew for each step of the order."""
    blocks = names_of(model)
    every = [name for names in blocks for name in names]
    steps: dict[str, Sequence[Sequence[str]]] = {
        "oneshot": [every],
        "block": blocks,
        "arrival": [[name] for name in capture(model, every, CALIBRATION)],
    }
    for names in steps[order]:
        for name, inputs in capture(model, list(names), CALIBRATION, fewest).items():
            weight = weight_of(model, name)
            weight.copy_(solve(weight, inputs, solver, weighting, pattern))


def prune(
    model: nn.Module, order: Order, solver: Solver | None, weighting: LanguageWeights, pattern: Pattern, fewest: int = 0
) -> None:
    calibration = replace(CALIBRATION, weights=weighting)
    Pruner(order, 4, fewest).prune(model, calibration, Wanda(), Uniform(), pattern, 0.5, solver=solver)


def assert_pruned_alike(model: nn.Module, expected: nn.Module) -> None:
    """Compare masks exactly, and weights to the rounding of second moments that were added up otherwise."""
    others = expected.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value == 0, others[name] == 0), name
        torch.testing.assert_close(value, others[name], rtol=1e-2, atol=1e-3)


@every_order
@every_weighting
@every_solver
def test_a_model_is_pruned_as_matrix_by_matrix(order: Order, weighting: LanguageWeights, solver: Solver) -> None:
    model = tiny_model("llama", dtype=torch.float64)
    expected = copy.deepcopy(model)
    prune_plainly(expected, order, solver, weighting, PATTERNS["unstructured"])
    prune(model, order, solver, weighting, PATTERNS["unstructured"])
    assert_pruned_alike(model, expected)


@every_order
@every_solver
@pytest.mark.parametrize("pattern", ["unstructured", "2of4"])
def test_matrices_that_are_stored_transposed(order: Order, solver: Solver, pattern: str) -> None:
    model = tiny_model("gpt2", dtype=torch.float64)
    expected = copy.deepcopy(model)
    prune_plainly(expected, order, solver, WEIGHTS["balanced"], PATTERNS[pattern])
    prune(model, order, solver, WEIGHTS["balanced"], PATTERNS[pattern])
    assert_pruned_alike(model, expected)


@every_order
@every_solver
@pytest.mark.parametrize("weighting", ["given", "balanced"])
def test_experts_are_judged_one_by_one(order: Order, solver: Solver, weighting: str) -> None:
    """None of them shares statistics here: what is pooled would be weighted expert by expert."""
    model = tiny_model("mixtral", dtype=torch.float64)
    expected = copy.deepcopy(model)
    prune_plainly(expected, order, solver, WEIGHTS[weighting], PATTERNS["unstructured"])
    prune(model, order, solver, WEIGHTS[weighting], PATTERNS["unstructured"])
    assert_pruned_alike(model, expected)


@every_order
@every_solver
@pytest.mark.parametrize("weighting", ["uniform", "balanced"])
def test_experts_that_share_statistics_are_pruned_too(order: Order, solver: Solver, weighting: str) -> None:
    model = tiny_model("qwen3_moe")
    prune(model, order, solver, WEIGHTS[weighting], PATTERNS["2of4"], fewest=10**6)
    for block in blocks_of(model):
        for matrix in block.matrices:
            assert bool(torch.isfinite(matrix.weight).all())
            assert bool(((matrix.weight == 0).reshape(-1, 4).sum(dim=1) == 2).all())


@every_order
@every_solver
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_precision_and_pattern_passes_the_audit(
    order: Order, solver: Solver, pattern: str, dtype: torch.dtype
) -> None:
    model = tiny_model("llama", dtype=dtype)
    prune(model, order, solver, WEIGHTS["balanced"], PATTERNS[pattern])
    assert all(matrix.weight.dtype == dtype for block in blocks_of(model) for matrix in block.matrices)


@every_solver
@pytest.mark.parametrize("sparsity", [0.0, 0.6])
def test_zeros_that_are_there_stay_and_count(solver: Solver, sparsity: float) -> None:
    model = tiny_model("llama")
    Pruner().prune(model, CALIBRATION, Magnitude(), Uniform(), Unstructured(), sparsity / 2)
    before = {name: value == 0 for name, value in model.state_dict().items()}
    report = Pruner().prune(model, CALIBRATION, Wanda(), Uniform(), Unstructured(), sparsity, solver=solver)
    assert all(bool((value == 0)[before[name]].all()) for name, value in model.state_dict().items())
    assert sum(plan.zeros_before for plan in report.plans) == sum(int(zeros.sum()) for zeros in before.values())


every_criterion = pytest.mark.parametrize(
    "criterion",
    [Wanda(), MWanda(probability_exponent=1.0), Magnitude(), SparseGPTCriterion()],
    ids=["wanda", "mwanda", "magnitude", "sparsegpt"],
)


@every_order
@every_criterion
@pytest.mark.parametrize("solver", [Swap(), DSnoT()], ids=["swap", "dsnot"])
def test_masks_of_any_criterion_are_refined(order: Order, criterion: Criterion, solver: Solver) -> None:
    """The pruner's audit counts; both kinds of statistics are there."""
    model, dense = tiny_model("llama"), tiny_model("llama").state_dict()
    Pruner(order).prune(model, CALIBRATION, criterion, Uniform(), Unstructured(), 0.5, solver=solver)
    changed = {name: value for name, value in model.state_dict().items() if not torch.equal(value, dense[name])}
    assert all(torch.equal(value[value != 0], dense[name][value != 0]) for name, value in changed.items())


@pytest.mark.parametrize("criterion", [Wanda(), Magnitude()], ids=["wanda", "magnitude"])
def test_adjusting_weights_under_the_mask_of_scores_keeps_that_mask(criterion: Criterion) -> None:
    models = []
    for solver in (None, ADMM(mask="scores")):
        models.append(tiny_model("llama"))
        Pruner("oneshot").prune(models[-1], CALIBRATION, criterion, Uniform(), Unstructured(), 0.5, solver=solver)
    plain, adjusted = (model.state_dict() for model in models)
    assert all(torch.equal(value == 0, adjusted[name] == 0) for name, value in plain.items())
    assert not all(torch.equal(value, adjusted[name]) for name, value in plain.items())


def test_the_criterion_sparsegpt_is_its_solver() -> None:
    """By either name, to the bit; with the plain solver given or not."""
    ways = [(SparseGPTCriterion(), None), (SparseGPTCriterion(), Threshold()), (Wanda(), SparseGPT())]
    models = []
    for criterion, solver in ways:
        models.append(tiny_model("llama"))
        Pruner().prune(models[-1], CALIBRATION, criterion, Uniform(), Unstructured(), 0.5, solver=solver)
    for other in models[1:]:
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in models[0].state_dict().items())


@every_order
def test_the_plain_solver_changes_nothing(order: Order) -> None:
    models = [tiny_model("llama"), tiny_model("llama")]
    for model, solver in zip(models, (None, Threshold()), strict=True):
        prune(model, order, solver, LanguageWeights(), PATTERNS["unstructured"])
    assert all(torch.equal(value, models[1].state_dict()[name]) for name, value in models[0].state_dict().items())


def prune_beside_dense(model: nn.Module, solver: WeightSolver, weighting: LanguageWeights) -> None:
    """Prune in place, block by block, with the inputs of an untouched copy of the model beside the pruned one's."""
    dense = copy.deepcopy(model)
    for names in names_of(model):
        pairs = capture(dense, names, CALIBRATION), capture(model, names, CALIBRATION)
        for name, inputs in pairs[1].items():
            weight = weight_of(model, name)
            statistics = statistics_of(inputs, weighting)
            weights = statistics.weights.tolist()
            crossed = [
                weight * theirs.float().T @ mine.float()
                for weight, theirs, mine in zip(weights, pairs[0][name], inputs, strict=True)
            ]
            method = Method.of(Wanda(), solver)
            share = quota(Unstructured(), weight == 0, 0.5, method.group)
            budget = Budget(share.planned, share.prune_per_group, None, method.group)
            both = replace(statistics, cross_moment=torch.stack(crossed).sum(dim=0))
            weight.copy_(solver.solve(Layer(weight.clone(), both, budget)))


MATCHING: dict[str, WeightSolver] = {
    "sparsegpt": SparseGPT(columns=8, match="dense"),
    "admm": ADMM(rounds=6, mask_rounds=4, match="dense"),
}

every_matching = pytest.mark.parametrize("solver", MATCHING.values(), ids=MATCHING)


@every_weighting
@every_matching
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_dense_outputs_are_matched_as_matrix_by_matrix(
    family: str, weighting: LanguageWeights, solver: WeightSolver
) -> None:
    model = tiny_model(family, dtype=torch.float64)
    expected = copy.deepcopy(model)
    prune_beside_dense(expected, solver, weighting)
    prune(model, "block", solver, weighting, PATTERNS["unstructured"])
    assert_pruned_alike(model, expected)
    assert all("forward" not in vars(block.module) for block in blocks_of(model))


@every_matching
def test_matching_dense_outputs_moves_the_whole_model_s_outputs_less(solver: WeightSolver) -> None:
    dense = tiny_model("llama", num_hidden_layers=4)
    tokens = torch.cat(CALIBRATION.sequences)
    moved = []
    for each in (solver, replace(solver, match="layer")):  # type: ignore[type-var, call-arg]
        model = copy.deepcopy(dense)
        prune(model, "block", each, LanguageWeights(), PATTERNS["unstructured"])
        with torch.no_grad():
            moved.append(float((model(tokens).logits - dense(tokens).logits).square().mean()))
    assert moved[0] < moved[1]


@every_matching
@pytest.mark.parametrize("family", ["mt5", "xlm-roberta"])
def test_dense_outputs_of_encoders_and_decoders_are_matched(family: str, solver: WeightSolver) -> None:
    model = tiny_model(family, dtype=torch.float64)
    expected = copy.deepcopy(model)
    prune_beside_dense(expected, solver, LanguageWeights())
    prune(model, "block", solver, LanguageWeights(), PATTERNS["unstructured"])
    assert_pruned_alike(model, expected)


@pytest.mark.parametrize("order", ["arrival", "oneshot"])
def test_only_one_order_has_dense_inputs_beside_the_others(order: Order) -> None:
    model = tiny_model("llama")
    with pytest.raises(ConfigurationError, match=rf"pruner\.order={order}: .*only order=block has; choices: block"):
        prune(model, order, MATCHING["admm"], LanguageWeights(), PATTERNS["unstructured"])


def test_experts_of_dense_and_pruned_models_cannot_be_paired() -> None:
    model = tiny_model("mixtral")
    with pytest.raises(ConfigurationError, match=r"solver\.match=dense: .*different experts.*; choices: layer"):
        prune(model, "block", MATCHING["admm"], LanguageWeights(), PATTERNS["unstructured"])
    assert not any(bool((matrix.weight == 0).any()) for block in blocks_of(model) for matrix in block.matrices)


@pytest.mark.parametrize(("order", "runs"), [("arrival", 1), ("block", 3), ("oneshot", 2)])
def test_balance_costs_one_more_run_of_each_block_but_on_arrival(order: Order, runs: int) -> None:
    model: Any = tiny_model("llama")
    calls: list[object] = []
    blocks_of(model)  # which follows a few tokens through the model, and knows their way from then on
    model.model.layers[0].mlp.down_proj.register_forward_hook(lambda *_: calls.append(None))
    prune(model, order, SOLVERS["swap"], WEIGHTS["balanced"], PATTERNS["unstructured"])
    assert len(calls) == runs * len(CALIBRATION.batches(4))
