"""How many weights go, and that the weights that are zero already count."""

import math
from typing import Any

import pytest
import torch
from plain_decoder import MATRICES, PlainBlock, PlainDecoder, changed, matrices_of, prune_plain, weights
from pruning_oracle import every_order

from mwanda.criteria import Criterion
from mwanda.criteria.magnitude import Magnitude
from mwanda.criteria.sparsegpt import SparseGPT
from mwanda.criteria.wanda import Wanda
from mwanda.errors import AuditError
from mwanda.models import blocks_of
from mwanda.patterns import Quota
from mwanda.patterns.n_of_m import NOfM
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner.engine import Order
from mwanda.schedules import Schedule
from mwanda.schedules.alphapruning import AlphaPruning
from mwanda.schedules.atp import ATP
from mwanda.schedules.cwl import CWL
from mwanda.schedules.dlp import DLP
from mwanda.schedules.fisher import Fisher
from mwanda.schedules.lsa import LSA
from mwanda.schedules.owl import OWL
from mwanda.schedules.owl_cwl import OWLCWL
from mwanda.schedules.uniform import Uniform


SPREADING: list[Schedule] = [
    OWL(2.0),
    CWL(),
    OWLCWL(2.0),
    OWL(2.0, level="matrix"),
    CWL(level="matrix"),
    OWLCWL(2.0, level="matrix"),
    AlphaPruning(tail="middle"),
    AlphaPruning(level="matrix"),
    ATP(),
    ATP(level="matrix"),
    DLP(),
    DLP(level="matrix"),
    LSA(),
    LSA(level="matrix"),
    Fisher(level="block"),
    Fisher(signal_fraction=1.0, labels=1.0),
    Fisher(signal_fraction=1.0, row_power=0),
]
every_schedule = pytest.mark.parametrize("schedule", [Uniform(), Uniform("matrix"), *SPREADING], ids=repr)


@pytest.fixture
def model() -> PlainDecoder:
    return PlainDecoder()


@every_order
@every_schedule
@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.77])
def test_zeros_meet_the_budget_at_odd_sizes(
    model: PlainDecoder, order: Order, schedule: Schedule, sparsity: float
) -> None:
    report = prune_plain(model, sparsity, order, schedule=schedule)
    rows = size = zeros = 0
    for matrix, plan in zip(matrices_of(model), sorted(report.plans, key=_position), strict=True):
        in_rows = (matrix.weight == 0).sum(dim=1)
        assert plan.zeros == int(in_rows.sum())
        if getattr(schedule, "rows", False):
            assert abs(in_rows.float().mean() / matrix.shape[1] - plan.target) <= 1 / matrix.shape[1]
            assert in_rows.min() < in_rows.max()
        else:
            assert bool((in_rows == math.floor(plan.target * matrix.shape[1])).all())
        rows, size, zeros = rows + matrix.shape[0], size + matrix.weight.numel(), zeros + plan.zeros
    assert 0 <= sparsity * size - zeros <= rows
    assert sum(plan.target * math.prod(plan.shape) for plan in report.plans) == pytest.approx(sparsity * size, abs=1e-6)


@pytest.mark.parametrize("schedule", SPREADING, ids=repr)
def test_blocks_differ_under_a_schedule(model: PlainDecoder, schedule: Schedule) -> None:
    report = prune_plain(model, schedule=schedule)
    assert max(report.sparsities) - min(report.sparsities) > 0.02


@every_schedule
def test_zeros_meet_the_budget_when_blocks_differ_in_size(schedule: Schedule) -> None:
    inner = iter((5, 40, 13))
    model = PlainDecoder(make_block=lambda hidden, _: PlainBlock(hidden, next(inner)))
    report = prune_plain(model, 0.5, schedule=schedule)
    size = sum(math.prod(plan.shape) for plan in report.plans)
    assert [plan.shape[0] for plan in report.plans] == [5, 7, 40, 7, 13, 7]
    assert 0 <= 0.5 * size - sum(plan.zeros for plan in report.plans) <= sum(plan.shape[0] for plan in report.plans)
    assert sum(plan.target * math.prod(plan.shape) for plan in report.plans) == pytest.approx(0.5 * size, abs=1e-6)


@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.77])
def test_a_whole_matrix_meets_the_budget_to_one_weight(model: PlainDecoder, sparsity: float) -> None:
    prune_plain(model, sparsity, criterion=Magnitude("matrix"))
    for matrix in matrices_of(model):
        assert 0 <= sparsity * matrix.weight.numel() - int((matrix.weight == 0).sum()) < 1


@every_order
@every_schedule
def test_sparsity_zero_changes_nothing(model: PlainDecoder, order: Order, schedule: Schedule) -> None:
    before = weights(model)
    report = prune_plain(model, 0.0, order, schedule=schedule)
    assert changed(model, before) == []
    assert [plan.zeros for plan in report.plans] == [0] * len(MATRICES)


def test_sparsity_zero_removes_nothing_by_magnitude(model: PlainDecoder) -> None:
    before = weights(model)
    prune_plain(model, 0.0, criterion=Magnitude())
    assert changed(model, before) == []


@every_order
def test_zeros_that_are_there_count_towards_the_target(model: PlainDecoder, order: Order) -> None:
    for matrix in matrices_of(model):
        matrix.weight[:, -2:] = 0
    report = prune_plain(model, 0.5, order)
    assert [plan.zeros_before for plan in report.plans] == [2 * plan.shape[0] for plan in report.plans]
    assert [plan.zeros for plan in report.plans] == [plan.shape[0] * (plan.shape[1] // 2) for plan in report.plans]


@every_order
def test_zeros_that_are_there_count_before_weights_of_an_input_that_is_never_active(
    model: PlainDecoder, order: Order
) -> None:
    """Both score zero; the weight that is zero already must be the one that counts."""
    for block in model.layers:
        block.up.bias.data[:4] = -1000
        block.down.weight.data[:, -4:] = 0
    report = prune_plain(model, 0.5, order)
    down = [plan for plan in report.plans if plan.name.endswith("down")]
    assert [plan.zeros for plan in down] == [7 * 6] * 3


def test_a_block_that_is_sparser_than_the_target_lets_the_others_keep_more(model: PlainDecoder) -> None:
    for matrix in blocks_of(model)[1].matrices:
        matrix.weight[:, : math.ceil(0.8 * matrix.shape[1])] = 0
    report = prune_plain(model, 0.5)
    assert report.sparsities[1] > 0.8
    assert report.sparsities[0] == report.sparsities[2] == pytest.approx((1.5 - report.sparsities[1]) / 2)
    assert sum(plan.zeros for plan in report.plans) <= 0.5 * sum(math.prod(plan.shape) for plan in report.plans)


@every_order
@pytest.mark.parametrize("sparsity", [0.5, 0.62])
def test_an_empty_matrix_lets_the_others_of_its_block_keep_more(
    model: PlainDecoder, order: Order, sparsity: float
) -> None:
    empty, *others = blocks_of(model)[0].matrices
    empty.weight.zero_()
    plans = {plan.name: plan for plan in prune_plain(model, sparsity, order).plans}
    assert plans[empty.name].zeros == empty.weight.numel()
    assert all(plans[matrix.name].target < sparsity for matrix in others)
    size = sum(math.prod(plan.shape) for plan in plans.values())
    found = sum(plan.zeros for plan in plans.values())
    assert 0 <= sparsity * size - found <= sum(plan.shape[0] for plan in plans.values())


@every_order
@pytest.mark.parametrize("sparsity", [0.3, 0.62])
def test_empty_rows_cost_no_more_than_a_weight_per_row(model: PlainDecoder, order: Order, sparsity: float) -> None:
    for matrix in matrices_of(model):
        matrix.weight[0] = 0
    for plan in prune_plain(model, sparsity, order).plans:
        assert 0 <= sparsity * math.prod(plan.shape) - plan.zeros <= plan.shape[0]


def test_a_total_off_the_target_fails_the_run(model: PlainDecoder) -> None:
    """A plan that was kept is not enough: it must have been the plan for what was asked."""

    class Half(Unstructured):
        def quota(self, zeros: Any, size: int, sparsity: float) -> Quota:
            return super().quota(zeros, size, sparsity / 2)

    with pytest.raises(AuditError, match=r"weights are zero where sparsity=0\.5 was asked for"):
        prune_plain(model, 0.5, pattern=Half())


def _position(plan: Any) -> int:
    return MATRICES.index(plan.name)


@every_order
@pytest.mark.parametrize("criterion", [Wanda(), Magnitude(), SparseGPT()], ids=["wanda", "magnitude", "sparsegpt"])
def test_cells_of_a_model_that_is_sparser_than_the_pattern_keep_their_zeros(order: Order, criterion: Criterion) -> None:
    """Seven tenths are zero where 2:4 removes a half: it is accepted, every cell has two zeros or those that it had."""
    model, generator = PlainDecoder(8, 16), torch.Generator().manual_seed(1)
    for matrix in matrices_of(model):
        matrix.weight[torch.rand(matrix.shape, generator=generator) < 0.7] = 0
    before = [matrix.weight == 0 for matrix in matrices_of(model)]
    report = prune_plain(model, 0.5, order, criterion, pattern=NOfM(2, 4))
    for matrix, zero in zip(matrices_of(model), before, strict=True):
        after = (matrix.weight == 0).view(-1, 4)
        assert bool(after.view(zero.shape)[zero].all())
        assert torch.equal(after.sum(dim=1), zero.view(-1, 4).sum(dim=1).clamp(min=2))
    fuller = sum(int((zero.view(-1, 4).sum(dim=1) > 2).sum()) for zero in before)
    assert report.fuller_cells == fuller > 0
    assert report.sparsities == [0.5] * 3


def test_cells_that_hold_no_more_zeros_than_the_pattern_removes_are_not_counted() -> None:
    assert prune_plain(PlainDecoder(8, 16), 0.5, pattern=NOfM(2, 4)).fuller_cells == 0
    assert prune_plain(PlainDecoder(8, 16), 0.5).fuller_cells == 0
