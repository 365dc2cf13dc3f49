"""Calls are made in order on one thread, and neither a failure nor a hang reaches the caller."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic

import pytest

from mwanda.tracking.background import Background


LONG = 60.0
"""Only waited for when a test is about to fail."""


@pytest.fixture
def failures() -> list[BaseException]:
    return []


@pytest.fixture
def background(failures: list[BaseException]) -> Background:
    return Background("under test", failures.append)


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """An event that a hanging call waits for, set at the end so that no thread outlives its test."""
    event = threading.Event()
    yield event
    event.set()


def within(seconds: float) -> Callable[[], float]:
    """Return a deadline that far from now."""
    end = monotonic() + seconds
    return lambda: end


def fail(error: BaseException) -> None:
    raise error


def test_calls_are_made_in_the_order_in_which_they_came(background: Background) -> None:
    made: list[int] = []
    for number in range(50):
        background.submit(partial(made.append, number))
    assert background.close(partial(made.append, 50), within(LONG))
    assert made == list(range(51))


def test_all_calls_are_made_on_one_other_thread(background: Background) -> None:
    threads: list[threading.Thread] = []
    background.submit(lambda: threads.append(threading.current_thread()))
    assert background.close(lambda: threads.append(threading.current_thread()), within(LONG))
    assert threads[0] is threads[1] is not threading.current_thread()


def test_the_thread_does_not_keep_the_interpreter_alive(background: Background) -> None:
    daemon: list[bool] = []
    assert background.close(lambda: daemon.append(threading.current_thread().daemon), within(LONG))
    assert daemon == [True]


@pytest.mark.parametrize("error", [ValueError("first"), SystemExit(3)])
def test_the_first_failure_is_reported_and_switches_the_rest_off(
    background: Background, failures: list[BaseException], error: BaseException
) -> None:
    made: list[str] = []
    background.submit(partial(made.append, "before"))
    background.submit(partial(fail, error))
    background.submit(partial(made.append, "after"))
    background.submit(partial(fail, ValueError("second")))
    assert background.close(partial(made.append, "last"), within(LONG))
    assert made == ["before", "last"]
    assert failures == [error]
    assert background.failed


def test_a_failing_last_call_is_reported(background: Background, failures: list[BaseException]) -> None:
    error = ValueError("last")
    assert background.close(partial(fail, error), within(LONG))
    assert failures == [error]


def test_a_hanging_call_is_given_up_and_what_came_after_it_dropped(
    background: Background, failures: list[BaseException], released: threading.Event
) -> None:
    made: list[str] = []
    background.submit(lambda: fail(ValueError("too late")) if released.wait(LONG) else None)
    background.submit(partial(made.append, "after"))
    last_made = threading.Event()
    assert not background.close(last_made.set, within(0.01))
    assert background.failed
    released.set()
    assert last_made.wait(LONG)
    assert made == []
    assert failures == []


def test_nothing_is_wrong_after_an_orderly_end(background: Background, failures: list[BaseException]) -> None:
    assert background.close(lambda: None, within(LONG))
    assert not background.failed
    assert failures == []


def test_the_deadline_is_asked_again_while_it_waits(background: Background, released: threading.Event) -> None:
    asked: list[int] = []

    def deadline() -> float:
        asked.append(1)
        return monotonic() + LONG if len(asked) < 4 else 0.0  # it has become known that nothing will come

    background.submit(lambda: fail(ValueError("too late")) if released.wait(LONG) else None)
    assert not background.close(lambda: None, deadline)
    assert len(asked) == 4
