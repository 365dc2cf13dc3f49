"""What stops a run, and that nothing is left behind then."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch
from plain_decoder import (
    CALIBRATION,
    MATRICES,
    PlainBlock,
    PlainDecoder,
    changed,
    matrices_of,
    prune_plain,
    weights,
)
from pruning_oracle import every_order
from torch import Tensor, nn

from mwanda.criteria.wanda import Wanda
from mwanda.errors import AuditError, CalibrationError, ModelError, MwandaError, SparsityError
from mwanda.patterns import Quota
from mwanda.patterns.n_of_m import NOfM
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner.engine import Order
from mwanda.schedules import BlockMatrix
from mwanda.schedules.base import Level, Looks
from mwanda.statistics import LanguageStatistics, Needs


@pytest.fixture
def model() -> PlainDecoder:
    return PlainDecoder()


@every_order
def test_a_target_below_the_zeros_that_are_there_is_an_error(model: PlainDecoder, order: Order) -> None:
    for matrix in matrices_of(model):
        matrix.weight[:, :4] = 0
    before = weights(model)
    with pytest.raises(SparsityError, match=r"sparsity=0\.3: .* zero already"):
        prune_plain(model, 0.3, order)
    assert changed(model, before) == []


@every_order
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_an_error(model: PlainDecoder, order: Order, value: float) -> None:
    model.layers[2].up.weight.data[3, 1] = value
    before = weights(model)
    with pytest.raises(SparsityError, match=r"layers\.2\.up"):
        prune_plain(model, 0.5, order)
    assert all(
        torch.equal(value, before[name]) for name, value in weights(model).items() if name != "layers.2.up.weight"
    )


@every_order
def test_rows_that_do_not_divide_into_groups_are_an_error(order: Order) -> None:
    model = PlainDecoder(hidden=8, inner=14)
    before = weights(model)
    with pytest.raises(SparsityError, match=r"2of4: rows of 14"):
        prune_plain(model, 0.5, order, pattern=NOfM(2, 4))
    assert changed(model, before) == []


@dataclass(frozen=True)
class FixedSchedule:
    """Gives each block what it was told."""

    sparsities: tuple[float, ...]
    level: Level = "block"
    looks_at: Looks = "nothing"
    signal_fraction: float = 1.0
    needs: Needs = Needs.NOTHING

    def signal(self, matrices: Sequence[BlockMatrix]) -> Sequence[float]:
        """Return nothing."""
        return ()

    def allocate(
        self, signals: Sequence[Sequence[float]], shares: Sequence[float], target: float, lower: Sequence[float]
    ) -> list[float]:
        """Return the fixed sparsities."""
        return list(self.sparsities)


@every_order
@pytest.mark.parametrize("sparsities", [(0.5, 0.5, 0.51), (1.0, 0.25, 0.25), (-0.1, 0.8, 0.8), (0.5, 0.5, math.nan)])
def test_a_schedule_that_misses_the_budget_or_its_bounds_is_an_error(
    model: PlainDecoder, order: Order, sparsities: tuple[float, ...]
) -> None:
    before = weights(model)
    with pytest.raises(SparsityError, match=r"0\.5 was asked for"):
        prune_plain(model, 0.5, order, schedule=FixedSchedule(sparsities))
    assert changed(model, before) == []


@pytest.mark.parametrize(("order", "prunes_nothing"), [("oneshot", True), ("block", False), ("arrival", False)])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_are_an_error(
    model: PlainDecoder, order: Order, prunes_nothing: bool, value: float
) -> None:
    model.layers[1].down.bias.data[2] = value
    before = weights(model)
    with pytest.raises(CalibrationError, match=r"layers\.2\.up are not finite"):
        prune_plain(model, 0.5, order)
    assert not prunes_nothing or changed(model, before) == ["layers.1.down.bias"] * math.isnan(value)


@pytest.mark.parametrize("order", ["oneshot", "arrival"])
def test_inputs_that_overflow_float32_are_an_error(model: PlainDecoder, order: Order) -> None:
    model.layers[1].down.bias.data[2] = 1e30
    with pytest.raises(CalibrationError, match=r"layers\.2\.up are not finite"):
        prune_plain(model, 0.5, order)


class SkippingBlock(PlainBlock):
    """Calls its second block only when no calibration text is there to be read."""

    def forward(self, states: Tensor) -> Tensor:
        """Use the first block alone for anything but zeros."""
        return states + self.up(states).sum(dim=-1, keepdim=True) if states.any() else super().forward(states)


@every_order
def test_a_matrix_that_no_token_reaches_is_an_error_that_names_it(order: Order) -> None:
    with pytest.raises(MwandaError, match=r"layers\.0\.down"):
        prune_plain(PlainDecoder(make_block=SkippingBlock), 0.5, order)


class RepeatingBlock(PlainBlock):
    """Calls its blocks twice."""

    def forward(self, states: Tensor) -> Tensor:
        """Pass twice."""
        return super().forward(super().forward(states))


@every_order
def test_a_matrix_that_is_called_twice_is_an_error_before_anything_is_pruned(order: Order) -> None:
    model = PlainDecoder(make_block=RepeatingBlock)
    before = weights(model)
    with pytest.raises(ModelError, match=r"enters layers\.0\.up 2 times"):
        prune_plain(model, 0.5, order)
    assert changed(model, before) == []


class HiddenlyRepeatingBlock(PlainBlock):
    """Calls its blocks twice, but only for calibration text."""

    def forward(self, states: Tensor) -> Tensor:
        """Pass twice, but for zeros."""
        return super().forward(super().forward(states)) if states.any() else super().forward(states)


@pytest.mark.parametrize(("order", "error"), [("oneshot", CalibrationError), ("block", CalibrationError)])
def test_statistics_that_are_not_of_each_token_once_are_an_error(order: Order, error: type[MwandaError]) -> None:
    """Nothing tells beforehand: what the text does decides."""
    with pytest.raises(error, match=r"layers\.0\.up was given 84 vectors for 42 calibration tokens"):
        prune_plain(PlainDecoder(make_block=HiddenlyRepeatingBlock), 0.5, order)


def test_a_matrix_that_is_called_twice_by_surprise_is_an_error_on_arrival() -> None:
    with pytest.raises(AuditError, match="exactly once"):
        prune_plain(PlainDecoder(make_block=HiddenlyRepeatingBlock), 0.5, "arrival")


@every_order
@pytest.mark.parametrize(
    ("way", "said"), [((0, 1, 0, 2), "layers.0 out of turn"), ((0, 1), "not pass through layers.2")]
)
def test_blocks_that_calibration_text_does_not_enter_once_each_are_an_error(
    order: Order, way: tuple[int, ...], said: str
) -> None:
    class Wanderer(PlainDecoder):
        def forward(self, input_ids: Tensor, use_cache: bool = False) -> Tensor:
            states = self.embed(input_ids)
            for index in way if states.any() else range(3):
                states = self.layers[index](states)
            return states

    with pytest.raises(CalibrationError, match=said):
        prune_plain(Wanderer(), 0.5, order)


class RoutingBlock(PlainBlock):
    """Calls its second block first for some batches."""

    def forward(self, states: Tensor) -> Tensor:
        """Choose the way by what the batch holds."""
        if states.sum() > 0:
            return super().forward(states)
        return states + self.up(states + self.down(torch.relu(states.repeat(1, 1, 2)[..., :13]))).mean(-1, True)


def test_batches_that_take_different_ways_are_an_error_that_names_another_order() -> None:
    sums = {bool(PlainDecoder().embed(part).sum() > 0) for part in CALIBRATION.sequences[0].split(1)}
    assert sums == {True, False}
    with pytest.raises(CalibrationError, match=r"pruner\.order=oneshot"):
        prune_plain(PlainDecoder(make_block=RoutingBlock), 0.5, "arrival", batch_size=1)


def test_batches_that_take_different_ways_are_pruned_in_one_shot() -> None:
    report = prune_plain(PlainDecoder(make_block=RoutingBlock), 0.5, "oneshot", batch_size=1)
    assert [plan.name for plan in report.plans] == MATRICES


@dataclass(frozen=True)
class OneTooFew(Unstructured):
    """Leaves a weight of each row that should go."""

    def quota(self, zeros: Tensor, size: int, sparsity: float) -> Quota:
        """Return one less than planned."""
        right = super().quota(zeros, size, sparsity)
        return Quota(right.prune_per_group - 1, right.planned)


@dataclass(frozen=True)
class Restoring(Wanda):
    """Brings a pruned weight of the first matrix back when it scores the last."""

    model: nn.Module = field(default_factory=nn.Module)

    def score(self, weight: Tensor, statistics: LanguageStatistics | None) -> Tensor:
        """Score as Wanda does."""
        first, last = (self.model.get_parameter(f"{name}.weight").data for name in (MATRICES[0], MATRICES[-1]))
        if weight.data_ptr() == last.data_ptr():
            first[tuple((first == 0).nonzero()[0])] = 0.1
        return super().score(weight, statistics)


@dataclass(frozen=True)
class NotANumber(Wanda):
    """Scores that cannot be compared."""

    def score(self, weight: Tensor, statistics: LanguageStatistics | None) -> Tensor:
        """Return no numbers."""
        return torch.full_like(weight, math.nan)


@every_order
def test_a_pattern_that_removes_one_weight_a_row_too_few_fails_the_audit(model: PlainDecoder, order: Order) -> None:
    with pytest.raises(AuditError, match=r"layers\.0\.up holds 26 zeros where 39 were planned"):
        prune_plain(model, 0.5, order, pattern=OneTooFew())


@every_order
def test_a_weight_that_comes_back_fails_the_audit(model: PlainDecoder, order: Order) -> None:
    with pytest.raises(AuditError, match=r"layers\.0\.up holds 38 zeros where 39 were planned"):
        prune_plain(model, 0.5, order, criterion=Restoring(model))


@every_order
def test_scores_that_are_no_numbers_fail_the_audit(model: PlainDecoder, order: Order) -> None:
    with pytest.raises(AuditError, match=r"layers\.0\.up holds 0 zeros where 39 were planned"):
        prune_plain(model, 0.5, order, criterion=NotANumber())


@every_order
def test_an_error_of_the_criterion_passes_through_and_leaves_no_hook(model: PlainDecoder, order: Order) -> None:
    class Failing(Wanda):
        def score(self, weight: Tensor, statistics: LanguageStatistics | None) -> Tensor:
            if weight.data_ptr() == model.layers[1].down.weight.data_ptr():
                raise ArithmeticError("scores")
            return super().score(weight, statistics)

    with pytest.raises(ArithmeticError, match="scores"):
        prune_plain(model, 0.5, order, criterion=Failing())
    assert not any(module._forward_pre_hooks for module in model.modules())
