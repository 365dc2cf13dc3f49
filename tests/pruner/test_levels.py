"""Sparsities of blocks and of matrices, from the signals to the masks, and what directional Fisher shares."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from plain_decoder import BLOCKS, CALIBRATION, MATRICES, PlainDecoder, matrices_of, prune_plain
from pruning_oracle import Order, capture, every_order, prune, wanda, weight_of
from scipy.stats import spearmanr
from tiny_models import tiny_model
from torch import nn

from mwanda.artifacts.store import ArtifactCache
from mwanda.criteria import Criterion
from mwanda.criteria.magnitude import Magnitude
from mwanda.criteria.mwanda import MWanda
from mwanda.criteria.sparsegpt import SparseGPT
from mwanda.criteria.wanda import Wanda
from mwanda.errors import ConfigurationError
from mwanda.models import blocks_of
from mwanda.patterns.n_of_m import NOfM
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner, PruningReport
from mwanda.pruner.damage import Damage, Sample, measure_damage, scoring_criterion
from mwanda.pruner.forecast import forecast
from mwanda.pruner.method import Method
from mwanda.pruner.passes import Passes, PassSettings
from mwanda.pruner.pre_pass import rows_to_spread
from mwanda.pruner.requests import check_request
from mwanda.pruner.runtime import Runtime
from mwanda.schedules import Schedule
from mwanda.schedules.alphapruning import AlphaPruning
from mwanda.schedules.atp import ATP
from mwanda.schedules.fisher import Fisher
from mwanda.schedules.lsa import LSA
from mwanda.schedules.owl import OWL
from mwanda.schedules.uniform import Uniform
from mwanda.solvers import Solver
from mwanda.solvers.sparsegpt import SparseGPT as SparseGPTSolver
from mwanda.solvers.swap import Swap
from mwanda.statistics import LanguageWeights


FISHER = Fisher(signal_fraction=1.0, labels=1.0)
ROWS_ALIKE = replace(FISHER, row_power=0)


def zeros(model: nn.Module) -> dict[str, list[bool]]:
    return {name: (value == 0).flatten().tolist() for name, value in model.state_dict().items()}


def targets(report: PruningReport) -> dict[str, float]:
    return {plan.name: plan.target for plan in report.plans}


@every_order
@pytest.mark.parametrize("schedule", [ROWS_ALIKE, OWL(2.0, level="matrix"), AlphaPruning(level="matrix")], ids=repr)
def test_masks_are_those_of_the_plain_procedure_for_each_matrix(order: Order, schedule: Schedule) -> None:
    model = PlainDecoder()
    expected = copy.deepcopy(model)
    report = prune_plain(model, 0.5, order, schedule=schedule)
    assert len({round(target, 3) for target in targets(report).values()}) > 3
    prune(expected, BLOCKS, CALIBRATION, order, [0.5] * 3, wanda, of_matrices=targets(report))
    assert zeros(model) == zeros(expected)


@every_order
def test_rows_that_matter_more_keep_more_and_lose_their_lowest_scores(order: Order) -> None:
    dense, model = PlainDecoder(), PlainDecoder()
    report = prune_plain(model, 0.5, order, schedule=FISHER)
    names = [name for names in BLOCKS for name in names]
    passes = Passes.of(dense, CALIBRATION, PassSettings(3, 0, "device"))
    rows = measure_damage(passes, Wanda(), Unstructured(), Sample(FISHER.levels, 1.0, 1.0, 1, 0, rows=True)).rows
    inputs = capture(dense, names, CALIBRATION)
    for name in names:
        gone = weight_of(model, name) == 0
        counts = gone.sum(dim=1)
        assert float(spearmanr(counts, rows[name]).statistic) < -0.7
        if order == "oneshot":
            ranks = wanda(weight_of(dense, name), inputs[name]).argsort(dim=1, stable=True).argsort(dim=1)
            assert gone.equal(ranks < counts[:, None])
    size = sum(math.prod(plan.shape) for plan in report.plans)
    assert 0 <= 0.5 * size - sum(plan.zeros for plan in report.plans) <= len(names)


@pytest.mark.parametrize(
    ("criterion", "solver"), [(SparseGPT(), None), (Magnitude("matrix"), None), (Wanda(), SparseGPTSolver())], ids=repr
)
def test_what_compares_all_weights_of_a_matrix_spreads_them_over_rows_itself(
    criterion: Criterion, solver: Solver | None
) -> None:
    runs = []
    for schedule in (FISHER, ROWS_ALIKE):
        model, pruner = PlainDecoder(), Pruner("block", 3)
        report = pruner.prune(model, CALIBRATION, criterion, schedule, Unstructured(), 0.5, solver=solver)
        runs.append((report.signals, zeros(model)))
    assert runs[0] == runs[1]


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.6), (0.3, 0.5), (0.5, 0.52)])
@pytest.mark.parametrize("before", [FISHER, Uniform()], ids=["fisher", "whole matrices"])
def test_what_is_pruned_already_is_pruned_further_to_the_budget(before: Schedule, first: float, second: float) -> None:
    """Rows hold different numbers of zeros by then, of which damage says nothing."""
    model = PlainDecoder()
    prune_plain(model, first, criterion=Magnitude("row" if before is FISHER else "matrix"), schedule=before)
    held = {matrix.name: (matrix.weight == 0).clone() for matrix in matrices_of(model)}
    report = prune_plain(model, second, schedule=FISHER)
    for matrix in matrices_of(model):
        assert bool((matrix.weight == 0)[held[matrix.name]].all())
    size = sum(math.prod(plan.shape) for plan in report.plans)
    rows = sum(plan.shape[0] for plan in report.plans)
    assert 0 <= second * size - sum(plan.zeros for plan in report.plans) <= rows


def test_a_forecast_is_of_the_allocation_that_a_run_makes() -> None:
    passes = Passes.of(PlainDecoder(), CALIBRATION, PassSettings(3, 0, "device"))
    sample = Sample(FISHER.levels, 1.0, 1.0, 1, 0, rows=True)
    found = forecast(passes, Method.of(Wanda()), FISHER, Unstructured(), sample, 0.5)
    assert found.signals == prune_plain(PlainDecoder(), 0.5, "block", schedule=FISHER).signals


def test_rows_that_hold_many_zeros_are_not_judged_by_what_is_left_to_remove() -> None:
    model = PlainDecoder()
    blocks = blocks_of(model)
    rows = {matrix.name: torch.ones(matrix.shape[0]) for block in blocks for matrix in block.matrices}
    damage = Damage(tuple(rows), torch.zeros(1), (0.3, 0.5, 0.7), 1, torch.ones(1, 1, len(rows), 3), rows)
    zeros = {matrix.name: torch.zeros(matrix.shape[0]) for block in blocks for matrix in block.matrices}
    name, inputs = blocks[0].matrices[0].name, blocks[0].matrices[0].shape[1]
    zeros[name][:2] = torch.tensor([inputs // 4, inputs // 4 + 1])
    found = rows_to_spread(damage, blocks, zeros)
    assert found[name].isnan().tolist() == [False, True] + [False] * (len(rows[name]) - 2)
    assert all(bool(found[other].isfinite().all()) for other in rows if other != name)


@pytest.mark.parametrize("schedule", [FISHER, OWL(2.0, level="matrix")], ids=repr)
def test_a_block_reports_the_mean_of_its_matrices(schedule: Schedule) -> None:
    report = prune_plain(PlainDecoder(), 0.5, schedule=schedule)
    assert len(report.signals) == len(MATRICES)
    for block, sparsity in enumerate(report.sparsities):
        inside = [plan for plan in report.plans if plan.block == block]
        sizes = [math.prod(plan.shape) for plan in inside]
        mean = sum(plan.target * size for plan, size in zip(inside, sizes, strict=True)) / sum(sizes)
        assert sparsity == pytest.approx(mean, abs=1e-12)


def test_signals_of_a_block_are_those_of_its_matrices_together() -> None:
    alone = prune_plain(PlainDecoder(), 0.5, schedule=FISHER).signals
    together = prune_plain(PlainDecoder(), 0.5, schedule=Fisher(signal_fraction=1.0, labels=1.0, level="block")).signals
    for block, signal in enumerate(together):
        inside = alone[2 * block : 2 * block + 2]
        assert signal == pytest.approx([sum(values) for values in zip(*inside, strict=True)])


def test_all_orders_look_at_the_same_gradients() -> None:
    reports = [prune_plain(PlainDecoder(), 0.5, order, MWanda(), FISHER) for order in ("block", "arrival", "oneshot")]
    assert reports[0].signals == reports[1].signals == reports[2].signals
    assert targets(reports[0]) == targets(reports[1]) == targets(reports[2])


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_two_runs_give_the_same_masks(family: str) -> None:
    runs = []
    for _ in range(2):
        model = tiny_model(family)
        report = prune_plain(model, 0.5, schedule=FISHER)
        runs.append((report.signals, zeros(model)))
    assert runs[0] == runs[1]


def test_a_matrix_that_matters_more_keeps_more() -> None:
    """The first product of a block that is multiplied by ten behind it does ten times the damage."""
    model = PlainDecoder()
    before = targets(prune_plain(copy.deepcopy(model), 0.5, schedule=FISHER))
    model.layers[1].down.weight.data *= 10
    after = targets(prune_plain(model, 0.5, schedule=FISHER))
    assert after["layers.1.up"] < before["layers.1.up"] - 0.02
    assert after["layers.1.down"] < before["layers.1.down"] - 0.02


def test_damage_is_measured_once_for_all_sparsities_orders_and_levels(tmp_path: Path) -> None:
    cache = ArtifactCache({"model": "m"}, "m", tmp_path)
    passes = []
    runs: list[tuple[float, Order, Schedule]] = [
        (0.5, "arrival", FISHER),
        (0.3, "arrival", FISHER),
        (0.6, "block", Fisher(lowest=0.2, signal_fraction=1.0, labels=1.0, level="block")),
    ]
    for sparsity, order, schedule in runs:
        model = PlainDecoder()
        runtime = Runtime(artifacts=cache)
        report = Pruner(order, 3).prune(model, CALIBRATION, Wanda(), schedule, Unstructured(), sparsity, runtime)
        passes.append(model.passes)
        assert targets(report) == targets(prune_plain(PlainDecoder(), sparsity, order, schedule=schedule))
    assert [each["kind"] for each in cache.made] == ["damage"]
    assert [each["kind"] for each in cache.reused] == ["damage", "damage"]
    assert passes[0] > passes[1] == passes[2] == 3  # of three batches
    other = Runtime(artifacts=cache)
    Pruner("arrival", 3).prune(PlainDecoder(), CALIBRATION, MWanda(), FISHER, Unstructured(), 0.5, other)
    assert [each["kind"] for each in cache.made] == ["damage", "damage"]  # another criterion removes other weights


def test_signals_of_weights_are_shared_whatever_the_text(tmp_path: Path) -> None:
    cache = ArtifactCache({"model": "m"}, "m", tmp_path)
    for calibration in (CALIBRATION, CALIBRATION.part(0.5)):
        runtime = Runtime(artifacts=cache)
        Pruner("block", 3).prune(PlainDecoder(), calibration, Wanda(), AlphaPruning(), Unstructured(), 0.5, runtime)
    assert [each["kind"] for each in cache.made] == [each["kind"] for each in cache.reused] == ["signals"]


def test_a_criterion_without_inputs_has_damage_too() -> None:
    report = prune_plain(PlainDecoder(), 0.5, criterion=Magnitude("row"), schedule=FISHER)
    assert max(targets(report).values()) - min(targets(report).values()) > 0.1


def test_a_schedule_of_weights_needs_no_pass_of_its_own() -> None:
    model = PlainDecoder()
    prune_plain(model, 0.5, "arrival", schedule=AlphaPruning())
    assert model.passes == 3  # of three batches


@pytest.mark.parametrize("schedule", [ATP(), AlphaPruning(), LSA(), Fisher(), OWL()], ids=repr)
def test_a_pattern_of_groups_is_the_same_everywhere(schedule: Schedule) -> None:
    with pytest.raises(ConfigurationError, match=r"schedule=.*pattern=2of4 is the same in all matrices.*uniform"):
        check_request(0.5, NOfM(2, 4), schedule)
    check_request(0.5, NOfM(2, 4), Uniform("matrix"))


def test_zeros_that_are_there_are_kept_by_each_matrix() -> None:
    model = PlainDecoder()
    matrices = [matrix for block in blocks_of(model) for matrix in block.matrices]
    matrices[3].weight[:, :12] = 0
    report = prune_plain(model, 0.5, schedule=FISHER)
    assert targets(report)[matrices[3].name] >= 12 / 13
    total = sum(math.prod(plan.shape) for plan in report.plans)
    assert sum(plan.zeros for plan in report.plans) <= 0.5 * total
    assert sum(plan.target * math.prod(plan.shape) for plan in report.plans) == pytest.approx(0.5 * total)


def test_gradients_that_are_not_finite_are_an_error() -> None:
    class Endless(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, values: torch.Tensor) -> torch.Tensor:
            return values.clone()

        @staticmethod
        def backward(ctx: object, *gradients: torch.Tensor) -> torch.Tensor:
            return gradients[0] * math.inf

    model = PlainDecoder()
    model.layers[1].register_forward_hook(lambda module, args, output: Endless.apply(output))
    with pytest.raises(Exception, match=r"gradients in layers\.1 are not finite; try model\.dtype=float32"):
        prune_plain(model, 0.5, schedule=FISHER)
    assert not any((matrix.weight == 0).any() for block in blocks_of(model) for matrix in block.matrices)


def test_a_language_that_weighs_more_is_protected_more() -> None:
    """Under the weights the damage is the weighted mean over languages, and weights of one are no weights."""
    signals = {}
    for given in (None, (1.0, 1.0, 1.0), (4.0, 1.0, 1.0), (1.0, 0.0, 0.0)):
        weighted = replace(CALIBRATION, weights=LanguageWeights(given))
        report = prune_plain(PlainDecoder(), 0.5, criterion=Magnitude("row"), schedule=ROWS_ALIKE, calibration=weighted)
        signals[given] = torch.tensor(report.signals)
    torch.testing.assert_close(signals[None], signals[1.0, 1.0, 1.0])
    alone = signals[1.0, 0.0, 0.0]
    torch.testing.assert_close(signals[4.0, 1.0, 1.0], (3 * signals[None] + 3 * alone) / 6)
    assert not torch.allclose(alone, signals[None], rtol=0.1)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (Method.of(Wanda()), Wanda()),
        (Method.of(MWanda()), MWanda()),
        (Method.of(Magnitude()), Magnitude()),
        (Method.of(SparseGPT()), Wanda()),
        (Method.of(MWanda(), Swap()), MWanda()),
        (Method.of(Magnitude(), SparseGPTSolver()), Wanda()),
    ],
    ids=repr,
)
def test_what_would_be_removed_is_scored_by_sums_of_the_inputs(method: Method, expected: Criterion) -> None:
    assert scoring_criterion(method) == expected
