"""Signals that ask a run to end: it leaves the block at hand, says that it was interrupted, and can be resumed.

Every finished block is written down already, so there is nothing to be saved when the signal comes.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


TRY_AGAIN = os.EX_TEMPFAIL
"""The exit code of a run that is to be started again: 75, "temporary failure" to sysexits."""

WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
"""What schedulers send some time before the end: SLURM's --signal, submitit (USR2)."""


class Interrupted(BaseException):
    """A signal ends the run; no Exception, so that no handler takes it for an error of the work itself."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(f"signal {self.signal.name}")

    @property
    def exit_code(self) -> int:
        """What the process ends with: 75 after a warning, and what shells say of other signals after those."""
        return TRY_AGAIN if self.signal in WARNINGS else 128 + self.signal


@contextmanager
def listening() -> Iterator[None]:
    """Raise `Interrupted` in what is done inside, at the first of the signals; those after it change nothing.

    A handler that was there for a warning (submitit's, which queues the job again and ends the process) is called
    when everything inside has ended; one that was there for SIGTERM stays.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can have signals
        return
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in (*WARNINGS, signal.SIGTERM)}
    ours = [number for number, handler in before.items() if number in WARNINGS or handler == signal.SIG_DFL]

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in ours:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    for number in ours:
        signal.signal(number, interrupt)
    try:
        yield
    except Interrupted as interrupted:
        launcher = before[interrupted.signal]
        if callable(launcher):
            launcher(interrupted.signal, None)
        raise
    finally:
        for number in ours:
            signal.signal(number, before[number])
