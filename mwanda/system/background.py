"""Work that nothing waits for until the next such work, or the end."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType


logger = logging.getLogger(__name__)


class Background:
    """Does one thing at a time in a thread of its own; what goes wrong there is raised by `wait`."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "background")
        self._pending: Future[object] | None = None

    def begin(self, work: Callable[[], object]) -> None:
        """Begin another thing, after the one before it."""
        self.wait()
        self._pending = self._thread.submit(work)

    def wait(self) -> None:
        """Wait for what was begun last, and raise what it raised."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> "Background":
        """Return this."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Wait, also where something else has gone wrong: what was begun is to be done, and that is to be known."""
        try:
            self.wait()
        except Exception as lost:
            if error is None:
                raise
            logger.warning("what was begun in the background failed as well: %s", lost)
        finally:
            self._thread.shutdown()
