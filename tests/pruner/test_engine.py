"""The three orders and the report; `tests/models/test_families.py` compares masks for each family."""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from family_contract import masks, reversed_set
from plain_decoder import BLOCKS, CALIBRATION, MATRICES, PlainBlock, PlainDecoder, prune_plain
from pruning_oracle import capture, cwl_sparsities, every_order, prune
from tiny_models import tiny_calibration, tiny_model
from torch import Tensor

from mwanda.criteria import Criterion
from mwanda.criteria.magnitude import Magnitude
from mwanda.criteria.mwanda import MWanda
from mwanda.criteria.wanda import Wanda
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner
from mwanda.pruner.engine import Order
from mwanda.pruner.runtime import Runtime
from mwanda.schedules import Schedule
from mwanda.schedules.cwl import CWL
from mwanda.schedules.owl_cwl import OWLCWL
from mwanda.schedules.uniform import Uniform
from mwanda.statistics import SequenceSums


WHOLE_CWL = CWL(signal_fraction=1)


@pytest.fixture
def model() -> PlainDecoder:
    return PlainDecoder()


def test_the_three_orders_prune_differently(model: PlainDecoder) -> None:
    others = [copy.deepcopy(model) for _ in range(3)]
    prune_plain(others[0], 0.5, "oneshot")
    prune_plain(others[1], 0.5, "block")
    prune_plain(others[2], 0.5, "arrival")
    oneshot, block, arrival = (masks(other) for other in others)
    assert oneshot != block != arrival != oneshot


@every_order
def test_masks_equal_the_oracle_at_odd_sizes(model: PlainDecoder, order: Order) -> None:
    expected = copy.deepcopy(model)
    prune(expected, BLOCKS, CALIBRATION, order, [0.4] * 3)
    prune_plain(model, 0.4, order)
    assert masks(model) == masks(expected)


@every_order
def test_a_model_that_flattens_its_tokens_gives_the_same_masks(model: PlainDecoder, order: Order) -> None:
    class FlatBlock(PlainBlock):
        def forward(self, states: Tensor) -> Tensor:
            return super().forward(states.flatten(0, 1)).view(states.shape)

    flat = PlainDecoder(make_block=FlatBlock)
    prune_plain(flat, 0.5, order, criterion=MWanda())
    prune_plain(model, 0.5, order, criterion=MWanda())
    assert masks(flat) == masks(model)


@every_order
def test_two_runs_give_the_same_weights_and_signals(order: Order) -> None:
    runs = []
    for _ in range(2):
        model = PlainDecoder()
        report = prune_plain(model, 0.5, order, MWanda(), OWLCWL(2.0))
        runs.append((masks(model), report.sparsities, report.signals))
    assert runs[0] == runs[1]


@every_order
def test_batch_size_and_order_of_sequences_change_no_mask_under_a_schedule(model: PlainDecoder, order: Order) -> None:
    other = copy.deepcopy(model)
    prune_plain(model, 0.5, order, MWanda(), WHOLE_CWL, batch_size=CALIBRATION.count)
    prune_plain(other, 0.5, order, MWanda(), WHOLE_CWL, calibration=reversed_set(CALIBRATION), batch_size=1)
    assert masks(other) == masks(model)


@pytest.mark.parametrize(
    ("order", "criterion", "schedule", "passes"),
    [
        ("arrival", Wanda(), Uniform(), 3),
        ("block", Wanda(), Uniform(), 3),
        ("oneshot", Wanda(), Uniform(), 3),
        ("oneshot", Wanda(), WHOLE_CWL, 3),
        ("arrival", Wanda(), WHOLE_CWL, 6),
        ("arrival", Magnitude(), WHOLE_CWL, 3),
        ("arrival", Magnitude(), Uniform(), 0),
    ],
)
def test_the_model_runs_no_more_often_than_needed(
    model: PlainDecoder, order: Order, criterion: Criterion, schedule: Schedule, passes: int
) -> None:
    prune_plain(model, 0.5, order, criterion, schedule)
    assert model.passes == passes  # of three batches


def test_a_criterion_that_looks_at_no_statistics_is_recorded_as_one_shot(model: PlainDecoder) -> None:
    assert prune_plain(model, order="arrival", criterion=Magnitude()).order == "oneshot"
    assert prune_plain(PlainDecoder(), order="arrival").order == "arrival"


@every_order
def test_the_report_has_every_matrix_once(model: PlainDecoder, order: Order) -> None:
    report = prune_plain(model, 0.5, order)
    assert [plan.name for plan in report.plans] == MATRICES
    assert [plan.shape for plan in report.plans] == [(13, 7), (7, 13)] * 3
    assert [plan.block for plan in report.plans] == [0, 0, 1, 1, 2, 2]
    assert report.blocks == ["layers.0", "layers.1", "layers.2"]
    assert report.sparsities == [0.5] * 3
    assert report.signals == []
    assert set(report.seconds) == {"calibrate", "schedule", "prune"}


def test_signals_of_a_schedule_come_from_the_dense_model(model: PlainDecoder) -> None:
    sparsities = cwl_sparsities(model, BLOCKS, CALIBRATION, 0.5, width=0.08)
    report = prune_plain(model, 0.5, "arrival", schedule=WHOLE_CWL)
    assert report.sparsities == pytest.approx(sparsities, abs=1e-6)
    assert [len(signal) for signal in report.signals] == [1, 1, 1]


@pytest.mark.parametrize("order", ["block", "arrival"])
def test_a_signal_fraction_shows_the_schedule_a_part_of_each_language(model: PlainDecoder, order: Order) -> None:
    few = CALIBRATION.part(0.5)
    assert few.count == sum(max(1, round(part.shape[0] / 2)) for part in CALIBRATION.sequences)
    alone = prune_plain(copy.deepcopy(model), 0.5, order, schedule=WHOLE_CWL, calibration=few)
    whole = prune_plain(copy.deepcopy(model), 0.5, order, schedule=WHOLE_CWL)
    part = prune_plain(model, 0.5, order, schedule=CWL(signal_fraction=0.5))
    assert part.signals == alone.signals != whole.signals


def test_a_signal_fraction_leaves_statistics_of_the_criterion_whole(model: PlainDecoder) -> None:
    other = copy.deepcopy(model)
    prune_plain(model, 0.5, "arrival", schedule=CWL(width=0, signal_fraction=0.01))
    prune_plain(other, 0.5, "arrival")
    assert masks(model) == masks(other)


def test_the_order_oneshot_has_seen_everything_when_the_schedule_looks(model: PlainDecoder) -> None:
    part = prune_plain(copy.deepcopy(model), 0.5, "oneshot", schedule=CWL(signal_fraction=0.01))
    assert part.signals == prune_plain(model, 0.5, "oneshot", schedule=WHOLE_CWL).signals


def test_one_language_makes_cwl_uniform_and_says_so(model: PlainDecoder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        report = prune_plain(model, schedule=WHOLE_CWL, calibration=tiny_calibration(languages=1, sequences=3))
    assert report.sparsities == pytest.approx([0.5] * 3)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "uniform" in caplog.text


def test_one_language_makes_mwanda_equal_to_wanda(model: PlainDecoder) -> None:
    other, calibration = copy.deepcopy(model), tiny_calibration(languages=1, sequences=3)
    prune_plain(model, criterion=MWanda(), calibration=calibration)
    prune_plain(other, criterion=Wanda(), calibration=calibration)
    assert masks(model) == masks(other)


@dataclass
class Recorder:
    """A progress display that notes how far each bar came."""

    done: dict[str, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)

    def track(
        self, items: Sequence[Any], title: str, unit: str, weight: Callable[[Any], int] = lambda _: 1
    ) -> Iterator[Any]:
        """Yield `items`, counting those that were finished."""
        self.total[title] = sum(weight(item) for item in items)
        self.done[title] = 0
        for item in items:
            yield item
            self.done[title] += weight(item)


@every_order
def test_every_bar_reaches_its_end(model: PlainDecoder, order: Order) -> None:
    recorder = Recorder()
    Pruner(order, 3).prune(model, CALIBRATION, Wanda(), WHOLE_CWL, Unstructured(), 0.5, Runtime(progress=recorder))
    assert recorder.done == recorder.total
    assert recorder.total["calibrate"] == len(model.layers)


@every_order
def test_no_graph_is_recorded_and_the_mode_is_as_before(model: PlainDecoder, order: Order) -> None:
    modes = []
    model.layers[1].register_forward_pre_hook(lambda *_: modes.append(torch.is_grad_enabled()))
    assert torch.is_grad_enabled()
    prune_plain(model, 0.5, order)
    assert torch.is_grad_enabled()
    assert set(modes) == {False}
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_an_input_that_matrices_share_is_reduced_once_on_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    reduced = []
    plain = SequenceSums.of

    def counted(inputs: Tensor, *others: Any) -> SequenceSums:
        reduced.append(inputs)
        return plain(inputs, *others)

    monkeypatch.setattr(SequenceSums, "of", counted)
    assert len(prune_plain(tiny_model("llama"), 0.5, "arrival", batch_size=CALIBRATION.count).plans) == 14
    assert len(reduced) == 8  # per block: query, key and value; output; gate and up; down


def test_the_head_of_a_transformers_model_is_not_run() -> None:
    model = tiny_model("llama")
    model.lm_head.register_forward_pre_hook(_refuse)
    assert len(prune_plain(model, 0.5, "arrival").plans) == 14


def test_the_oracle_sees_what_the_model_sees(model: PlainDecoder) -> None:
    """Guards the guard: inputs captured over all sequences at once are those of each sequence alone."""
    captured = capture(model, MATRICES, CALIBRATION)
    assert list(captured) == MATRICES
    first = model.embed(CALIBRATION.sequences[1]).flatten(0, 1)
    assert torch.equal(captured["layers.0.up"][1], first)


def _refuse(*_: object) -> None:
    raise AssertionError("the head was run")
