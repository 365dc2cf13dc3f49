"""A thread that makes calls in order, so that the one who asks for them never waits and never fails."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import monotonic


Call = Callable[[], None]
GLANCE = 0.05
"""Seconds after which the deadline, which may move, is looked at again."""


class Background:
    """Makes calls one after the other on a thread of its own; the first failure switches the rest off.

    The thread is a daemon and no executor's: Python waits for an executor's threads before it ends, so a call that
    hangs would keep the interpreter alive.

    Args:
        name: what the thread is called.
        on_failure: told of the first failure, on that thread.
    """

    def __init__(self, name: str, on_failure: Callable[[BaseException], None]) -> None:
        self.failed = False
        self._on_failure = on_failure
        self._calls: SimpleQueue[Call] = SimpleQueue()
        self._last: Call | None = None
        self._done = threading.Event()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, call: Call) -> None:
        """Make `call` after those before it, unless one of them fails."""
        self._calls.put(call)

    def close(self, last: Call, deadline: Callable[[], float]) -> bool:
        """Make one last call, whatever came before, and wait for it; return whether it ended in time.

        Args:
            last: the call.
            deadline: says until when to wait, by `time.monotonic`; it may say another time whenever it is asked.
        """
        self._last = last
        self._calls.put(last)
        ended = False
        try:
            while not ended and (left := deadline() - monotonic()) > 0:
                ended = self._done.wait(min(left, GLANCE))
        finally:
            # What is still waiting is dropped, and what still fails is nobody's concern any more.
            self.failed = self.failed or not ended
        return ended

    def _work(self) -> None:
        while not self._done.is_set():
            call = self._calls.get()
            if call is self._last or not self.failed:
                self._make(call)
            if call is self._last:
                self._done.set()

    def _make(self, call: Call) -> None:
        try:
            call()
        except (Exception, SystemExit) as error:
            if not self.failed:
                self.failed = True
                self._on_failure(error)
