"""Signals that end a run."""

import os
import signal
import threading
from typing import Any

import pytest

from mwanda.interruption import TRY_AGAIN, Interrupted, listening


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture
def handlers() -> Any:
    """Put every handler back in its place."""
    numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGUSR1, TRY_AGAIN), (signal.SIGUSR2, TRY_AGAIN), (signal.SIGTERM, 143)],
)
def test_a_signal_ends_the_work_and_says_which(handlers: None, number: signal.Signals, exit_code: int) -> None:
    with pytest.raises(Interrupted, match=number.name) as caught, listening():
        send(number)
        pytest.fail("the work went on")
    assert caught.value.exit_code == exit_code
    assert not isinstance(caught.value, Exception)  # nobody takes it for an error of the work
    assert signal.getsignal(number) == signal.SIG_DFL


def test_a_second_signal_does_not_disturb_the_end(handlers: None) -> None:
    ended = []
    with pytest.raises(Interrupted, match="SIGUSR2"), listening():
        try:
            send(signal.SIGUSR2)
        finally:
            send(signal.SIGUSR1)
            send(signal.SIGTERM)
            ended.append(True)
    assert ended == [True]


def test_a_launcher_that_listens_itself_is_called_when_the_work_has_ended(handlers: None) -> None:
    order: list[object] = []

    def queue_again(number: int, frame: object) -> None:
        order.append(signal.Signals(number))
        raise SystemExit(255)

    signal.signal(signal.SIGUSR2, queue_again)
    signal.signal(signal.SIGTERM, lambda *_: order.append("left to the launcher"))
    with pytest.raises(SystemExit), listening():
        try:
            send(signal.SIGTERM)
            send(signal.SIGUSR2)
        finally:
            order.append("ended")
    assert order == ["left to the launcher", "ended", signal.SIGUSR2]
    assert signal.getsignal(signal.SIGUSR2) is queue_again


def test_work_in_another_thread_is_left_alone(handlers: None) -> None:
    done = []

    def work() -> None:
        with listening():
            done.append(signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [signal.SIG_DFL]
