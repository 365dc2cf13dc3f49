"""Forward passes that wait for each other."""

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import pytest
import torch
from greenlet import greenlet
from plain_decoder import PlainDecoder
from tiny_models import tiny_calibration
from torch import Tensor, nn

from mwanda.calibration import Batch
from mwanda.errors import CalibrationError
from mwanda.pruner.lockstep import Lockstep


BATCHES = tiny_calibration(languages=2, sequences=3, length=5).batches(2)


@pytest.fixture
def model() -> PlainDecoder:
    return PlainDecoder(blocks=2)


@pytest.fixture(autouse=True)
def nothing_left(model: PlainDecoder) -> Iterator[None]:
    """After every test there is no hook, and no forward pass that still waits half-way."""
    yield
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert waiting_greenlets() == 0


def lockstep(model: PlainDecoder, stops: list[nn.Module]) -> Lockstep:
    return Lockstep(lambda batch: model(batch.tokens), BATCHES, stops)


def waiting_greenlets() -> int:
    """Count the greenlets that have started and not finished, but for the one that every thread has."""
    # By type and not by isinstance, which some lazy objects among all those that exist answer with a warning.
    return sum(1 for each in gc.get_objects() if issubclass(type(each), greenlet) and each and each.parent is not None)


def test_all_batches_arrive_at_each_stop_in_call_order(model: PlainDecoder) -> None:
    stops = [model.layers[1].up, model.layers[0].down, model.layers[0].up]
    visited = []
    with lockstep(model, stops) as walk:
        while arrivals := walk.advance():
            assert [arrival.batch for arrival in arrivals] == BATCHES
            visited.append({arrival.module for arrival in arrivals})
    assert visited == [{model.layers[0].up}, {model.layers[0].down}, {model.layers[1].up}]


def test_the_model_runs_once_for_each_batch(model: PlainDecoder) -> None:
    with lockstep(model, list(model.layers)) as walk:
        while walk.advance():
            pass
    assert model.passes == len(BATCHES)


def test_arguments_are_those_that_the_model_made(model: PlainDecoder) -> None:
    with lockstep(model, [model.layers[0]]) as walk:
        for arrival in walk.advance():
            assert arrival.kwargs == {}
            assert torch.equal(arrival.args[0], model.embed(arrival.batch.tokens))


def test_what_changes_while_batches_wait_is_seen_by_all_of_them(model: PlainDecoder) -> None:
    with lockstep(model, [model.layers[0], model.layers[1]]) as walk:
        walk.advance()
        for parameter in model.layers[0].down.parameters():
            parameter.data.zero_()
        for arrival in walk.advance():
            assert torch.equal(arrival.args[0], model.embed(arrival.batch.tokens))


def test_a_call_by_the_driver_does_not_pause(model: PlainDecoder) -> None:
    with lockstep(model, [model.layers[0]]) as walk:
        (first, *_) = walk.advance()
        before = waiting_greenlets()
        assert first.module(*first.args).shape == first.args[0].shape
        assert waiting_greenlets() == before == len(BATCHES)


def test_without_stops_all_batches_finish_at_once(model: PlainDecoder) -> None:
    with lockstep(model, []) as walk:
        assert walk.advance() == []
        assert walk.advance() == []
    assert model.passes == len(BATCHES)


def test_leaving_early_unwinds_every_pass(model: PlainDecoder) -> None:
    unwound = []

    def forward(batch: Batch) -> None:
        try:
            model(batch.tokens)
        finally:
            unwound.append(batch)

    with Lockstep(forward, BATCHES, [model.layers[1]]) as walk:
        walk.advance()
        assert unwound == []
    assert unwound == BATCHES


def test_an_error_of_the_driver_unwinds_every_pass(model: PlainDecoder) -> None:
    with pytest.raises(ZeroDivisionError), lockstep(model, list(model.layers)) as walk:
        walk.advance()
        assert waiting_greenlets() == len(BATCHES)
        raise ZeroDivisionError


@pytest.mark.parametrize("failing", range(len(BATCHES)))
def test_an_error_of_one_pass_reaches_the_driver(model: PlainDecoder, failing: int) -> None:
    def forward(batch: Batch) -> Tensor:
        states: Tensor = model.layers[0](model.embed(batch.tokens))
        if batch is BATCHES[failing]:
            raise ArithmeticError("half-way")
        result: Tensor = model.layers[1](states)
        return result

    with pytest.raises(ArithmeticError, match="half-way"), Lockstep(forward, BATCHES, list(model.layers)) as walk:
        walk.advance()
        walk.advance()


def test_an_error_before_the_first_stop_reaches_the_driver(model: PlainDecoder) -> None:
    def forward(batch: Batch) -> None:
        raise ArithmeticError(f"batch of {batch.tokens.shape[0]}")

    with pytest.raises(ArithmeticError, match="batch of 2"), Lockstep(forward, BATCHES, [model.layers[0]]) as walk:
        walk.advance()


def test_batches_at_different_modules_are_an_error(model: PlainDecoder) -> None:
    def forward(batch: Batch) -> None:
        model.layers[0 if batch is BATCHES[0] else 1](model.embed(batch.tokens))

    with (
        pytest.raises(CalibrationError, match=r"pruner\.order=oneshot"),
        Lockstep(forward, BATCHES, list(model.layers)) as walk,
    ):
        walk.advance()


def test_a_batch_that_skips_a_stop_is_an_error(model: PlainDecoder) -> None:
    def forward(batch: Batch) -> None:
        if batch is not BATCHES[-1]:
            model.layers[0](model.embed(batch.tokens))

    with pytest.raises(CalibrationError, match="different ways"), Lockstep(forward, BATCHES, [model.layers[0]]) as walk:
        walk.advance()


def place_of(batch: Batch) -> int:
    """Return which of the batches it is."""
    return next(place for place, each in enumerate(BATCHES) if each is batch)


@contextmanager
def numbered(place: ContextVar[int], value: int) -> Iterator[None]:
    """Set a context variable for the time of the block."""
    token = place.set(value)
    try:
        yield
    finally:
        place.reset(token)


@contextmanager
def silent() -> Iterator[None]:
    """Hide warnings for the time of the block."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


NUMBER: ContextVar[int] = ContextVar("NUMBER", default=0)
CONTEXTS: dict[str, tuple[Callable[[], AbstractContextManager[object]], Callable[[], object]]] = {
    "no gradients": (torch.no_grad, torch.is_grad_enabled),
    "gradients": (torch.enable_grad, torch.is_grad_enabled),
    "autocast": (
        lambda: torch.autocast("cpu", torch.bfloat16),
        lambda: (torch.ones(2, 2) @ torch.ones(2, 2)).dtype,
    ),
    "random numbers": (lambda: torch.random.fork_rng(devices=[]), lambda: torch.get_rng_state().tolist()),
    "warnings": (silent, lambda: [each[:1] for each in warnings.filters][:1]),
    "context variables": (lambda: numbered(NUMBER, 1), NUMBER.get),
}
"""What a pass may enter, and what is seen of it."""


@pytest.mark.parametrize(("enter", "seen"), CONTEXTS.values(), ids=CONTEXTS)
def test_what_is_global_to_the_thread_is_right_for_each_pass_and_for_the_driver(
    model: PlainDecoder, enter: Callable[[], AbstractContextManager[object]], seen: Callable[[], object]
) -> None:
    """Some passes change it and some do not, in an order in which they leave it before the others."""
    inside: list[list[object]] = [[] for _ in BATCHES]

    def forward(batch: Batch) -> None:
        index = place_of(batch)
        with enter() if index % 2 == 0 else nullcontext():
            if index % 2 == 0:
                torch.manual_seed(index)
            for layer in model.layers:
                inside[index].append(seen())
                layer(model.embed(batch.tokens))
        inside[index].append(seen())

    def alone(index: int) -> list[object]:
        inside[index].clear()
        forward(BATCHES[index])
        return list(inside[index])

    before = seen()
    expected = [alone(index) for index in range(len(BATCHES))]
    assert seen() == before
    for each in inside:
        each.clear()
    with Lockstep(forward, BATCHES, list(model.layers)) as walk:
        while walk.advance():
            assert seen() == before
    assert inside == expected
    assert seen() == before


@pytest.mark.parametrize(("enter", "seen"), CONTEXTS.values(), ids=CONTEXTS)
@pytest.mark.parametrize("error", [False, True], ids=["left early", "an error"])
def test_passes_that_are_given_up_leave_the_thread_as_it_was(
    model: PlainDecoder,
    enter: Callable[[], AbstractContextManager[object]],
    seen: Callable[[], object],
    error: bool,
) -> None:
    def forward(batch: Batch) -> None:
        with enter():
            torch.manual_seed(7)
            model.layers[0](model.embed(batch.tokens))
            if error and batch is BATCHES[1]:
                raise ArithmeticError

    before = seen()
    with (
        pytest.raises(ArithmeticError) if error else nullcontext(),
        Lockstep(forward, BATCHES, [model.layers[0]]) as walk,
    ):
        walk.advance()
        if error:
            walk.advance()
    assert seen() == before


def test_every_pass_finds_what_the_driver_has_set(model: PlainDecoder) -> None:
    found = []
    with (
        torch.no_grad(),
        numbered(NUMBER, 3),
        Lockstep(
            lambda batch: found.append((NUMBER.get(), model(batch.tokens).requires_grad)), BATCHES, list(model.layers)
        ) as walk,
    ):
        while walk.advance():
            pass
    assert found == [(3, False)] * len(BATCHES)


def test_random_numbers_of_a_pass_that_waits_are_its_own(model: PlainDecoder) -> None:
    drawn: list[list[Tensor]] = [[] for _ in BATCHES]

    def forward(batch: Batch) -> None:
        for layer in model.layers:
            drawn[place_of(batch)].append(torch.rand(2))
            layer(model.embed(batch.tokens))

    torch.manual_seed(5)
    expected = [torch.rand(2) for _ in model.layers]
    torch.manual_seed(5)
    with Lockstep(forward, BATCHES, list(model.layers)) as walk:
        walk.advance()
        states = [walk.random_state(index) for index in range(len(BATCHES))]
        torch.manual_seed(9)
        while walk.advance():
            pass
    for each in drawn:
        torch.testing.assert_close(each, expected)
    for state in states:
        torch.set_rng_state(state)
        assert torch.equal(torch.rand(2), expected[1])
