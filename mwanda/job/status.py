"""What a run is doing, for whoever looks from outside: `status.json` in its folder.

`status.json` is replaced as a whole at every change, and every `BEAT` seconds, by the one process of a run that
writes:

    schema        mwanda.status/1
    state         running | complete | failed | interrupted
    stage         start | load | evaluate dense | calibrate | prune | evaluate pruned | export
    block, blocks blocks that the stage has begun, of how many; null in a stage that does not go by blocks
    progress      0 … 1 within the stage, null where that is unknown
    seconds       of this attempt; started, updated: its times (UTC)
    pid, born     the process, and when it started, so that a number that was given again is not taken for it
    host          a digest of machine and container, not its name
    scheduled     job and attempt of SLURM, else null: when it starts a job again, the attempt before is over
    attempt       1, and one more each time the same job is taken up again
    exception     {type, message} of a failed or interrupted run, else null
    config_hash, overrides, name, code (commit, dirty, difference) as it was when the attempt started

`failed` is an `Exception`, `interrupted` any other `BaseException` (a signal, Ctrl-C). Both go on behind the last
finished block when the job is started again. A process that is gone without a word (kill -9) can write nothing: who
reads `running` calls it `lost` when the process is not there (same host) or nothing has been written for `STALE`
seconds (another one). Results are judged by results.json alone: a run that has a complete one is complete.
"""

import hashlib
import logging
import os
import socket
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from annotated_types import Gt, MinLen
from pydantic import AfterValidator

from mwanda.errors import ConfigurationError, RecordError
from mwanda.job.reading import Part, problem_of, read_json
from mwanda.job.results import RESULTS
from mwanda.system.environment import code
from mwanda.system.files import write_json
from mwanda.system.ownership import UNFINISHED


if TYPE_CHECKING:
    from mwanda.system.progress import Progress


SCHEMA = "mwanda.status/1"

FILE = "status.json"

BEAT = 15.0

STALE = 120.0

SAME_BIRTH = 2.0
"""Seconds by which the time at which a process started may move with the machine's clock."""

QUICKEST = 0.5
"""Seconds between two changes of `block` or `progress` that are written down."""

State = Literal["running", "complete", "failed", "interrupted"]

Stage = Literal["start", "load", "evaluate dense", "calibrate", "prune", "evaluate pruned", "export"]

OF_A_RUN = (RESULTS, "config.yaml", "overrides.yaml", "run.log")
"""Files by which the folder of a run is known when its status cannot be read."""


Seen = Literal["running", "complete", "failed", "interrupted", "lost", "waiting", "skipped", "unreadable"]
"""What a reader makes of it: besides the states `lost`, `waiting` (planned by a sweep and not started), `skipped`
(complete before its sweep was last started) and `unreadable` (status.json is damaged)."""

STAGES: dict[str, Stage] = {"calibrate and prune": "prune"}
"""Stages that the progress of a run calls otherwise."""


T = TypeVar("T")

logger = logging.getLogger(__name__)


class TakenError(ConfigurationError):
    """Another process is at work in the folder of a run."""

    def __init__(self, folder: Path) -> None:
        super().__init__("output_dir", folder, "another process is at work there; wait for it, or stop it")


class Reporter:
    """Writes the status of one run; with no folder (a process that does not write) it does nothing.

    Args:
        folder: of the run.
        config_hash: of what it does.
        overrides: what was typed for it.
        name: what people read.

    Raises:
        TakenError: another process is at work in the folder.
    """

    def __init__(self, folder: Path | None, config_hash: str, overrides: Sequence[str], name: str) -> None:
        self._folder, self._lock, self._over = folder, threading.Lock(), threading.Event()
        self._clock = self._written = perf_counter()
        if folder is None:
            return
        before = refuse_if_taken(folder)
        again = before is not None and before["config_hash"] == config_hash
        self._content: dict[str, Any] = {
            "schema": SCHEMA,
            "state": "running",
            "stage": "start",
            "block": None,
            "blocks": None,
            "progress": None,
            "seconds": 0.0,
            "started": _now(),
            "updated": _now(),
            "pid": os.getpid(),
            "born": started(os.getpid()),
            "host": host(),
            "scheduled": _scheduled(),
            "attempt": before["attempt"] + 1 if before is not None and again else 1,
            "exception": None,
            "config_hash": config_hash,
            "overrides": list(overrides),
            "name": name,
            "code": code(),
        }
        if before is None:
            self._claim()
        self._write()
        weakref.finalize(self, self._over.set).atexit = False  # who is lost without an end does not beat for ever
        threading.Thread(target=_beat, args=(weakref.ref(self), self._over), name="status", daemon=True).start()

    def stage(self, stage: Stage) -> None:
        """Say that a stage begins."""
        self._change(stage=stage, block=None, blocks=None, progress=None)

    def advance(self, done: int, total: int, unit: str) -> None:
        """Say how far the stage has come; written down no more often than every `QUICKEST` seconds."""
        by_block = {"block": min(done + 1, total), "blocks": total} if unit == "blocks" else {}
        share = done / total if total else None
        self._change(hurry=False, progress=share, **by_block)

    def end(self, state: State, error: BaseException | None = None) -> None:
        """Say how the run has ended; nothing is written after that."""
        exception = None if error is None else {"type": type(error).__name__, "message": _line(str(error))}
        with self._lock:
            if not self._over.is_set():
                self._over.set()
                try:
                    self._update(state=state, exception=exception)
                except OSError as problem:  # what ended the run must be told, and results are judged by results.json
                    logger.warning("%s could not be written: %s", FILE, problem)

    def _change(self, *, hurry: bool = True, **changes: Any) -> None:
        if self._folder is None:
            return
        with self._lock:
            if not self._over.is_set():
                self._content |= changes
                if hurry or perf_counter() - self._written >= QUICKEST:
                    self._update()

    def _update(self, **changes: Any) -> None:
        if self._folder is not None:
            self._content |= changes
            self._write()

    def _write(self) -> None:
        assert self._folder is not None
        self._written = perf_counter()
        self._content |= {"seconds": round(self._written - self._clock, 3), "updated": _now()}
        write_json(self._folder / FILE, self._content)

    def _claim(self) -> None:
        """Write the first status of the folder, unless another process does so at this very moment."""
        assert self._folder is not None
        own = self._folder / f".{FILE}.{host()}.{os.getpid()}{UNFINISHED}"
        write_json(own, self._content)
        try:
            os.link(own, self._folder / FILE)  # which, other than a rename, never replaces
        except FileExistsError:
            if read(self._folder) is not None:
                raise TakenError(self._folder) from None
        except OSError:  # a file system without links
            pass
        finally:
            own.unlink()

    def _refresh(self) -> None:
        with self._lock, suppress(OSError):  # a disk that is full for a while must not end the thread
            if not self._over.is_set():
                self._update()


def _beat(reporter: "weakref.ref[Reporter]", over: threading.Event) -> None:
    while not over.wait(BEAT):
        if (alive := reporter()) is not None:
            alive._refresh()
        del alive


@dataclass(frozen=True)
class Watched:
    """A progress display that also tells the reporter; the title of a loop is its stage."""

    shown: "Progress"
    reporter: Reporter

    def track(self, items: Sequence[T], title: str, unit: str, weight: Callable[[T], int] = lambda _: 1) -> Iterator[T]:
        """Yield `items`."""
        self.reporter.stage(STAGES.get(title, title))  # type: ignore[arg-type]
        total, done = sum(map(weight, items)), 0
        for item in self.shown.track(items, title, unit, weight):
            self.reporter.advance(done, total, unit)
            yield item
            done += weight(item)


class _Exception(Part):
    type: str
    message: str


def _with_a_zone(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("has no time zone")
    return text


class _Status(Part):
    """What a reader of status.json relies on."""

    state: State
    stage: str
    block: int | None
    blocks: int | None
    progress: float | None
    seconds: float
    updated: Annotated[str, AfterValidator(_with_a_zone)]
    pid: Annotated[int, Gt(0)]
    born: float | None
    host: str
    scheduled: Annotated[list[str], MinLen(2)] | None = None
    attempt: int
    exception: _Exception | None
    config_hash: str


def read(folder: Path) -> dict[str, Any] | None:
    """Return what status.json of a run says, if there is one that can be read."""
    with suppress(RecordError):
        return _read(folder / FILE)
    return None


def _read(path: Path) -> dict[str, Any]:
    """Return what a status.json says.

    Raises:
        RecordError: it cannot be read, or is not what a run writes.
    """
    found = read_json(path)
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise RecordError(f"{path}: is no {SCHEMA}")
    problem = problem_of(_Status, found)
    if problem is not None:
        raise RecordError(f"{path}: {problem}")
    return found


def is_alive(status: Mapping[str, Any]) -> bool:
    """Return whether the process that wrote `running` is still there, as far as can be told from here."""
    if status["host"] == host():
        born = started(status["pid"])
        before = status["born"]
        return born is not None and before is not None and bool(abs(born - before) < SAME_BIRTH)
    silent = datetime.now(UTC) - datetime.fromisoformat(status["updated"])
    return silent.total_seconds() < STALE


def is_complete(folder: Path, config_hash: str | None = None) -> bool:
    """Return whether the folder holds complete results, of that configuration if one is given."""
    with suppress(RecordError):
        found = read_json(folder / RESULTS)
        if isinstance(found, dict) and found.get("status") == "complete":
            return config_hash is None or found.get("config_hash") == config_hash
    return False


def seen(folder: Path) -> tuple[Seen, dict[str, Any]] | None:
    """Return the state of a run as it looks from here, and its status; None where no run has begun.

    Of a status that cannot be read there is nothing but an exception that says why.
    """
    if not (folder / FILE).exists():
        return None
    try:
        status = _read(folder / FILE)
    except RecordError as error:
        if not any((folder / name).is_file() for name in OF_A_RUN):
            return None  # the file is of another program
        if is_complete(folder):
            return "complete", {}
        return "unreadable", {"exception": {"type": type(error).__name__, "message": str(error)}}
    if status["state"] != "complete" and is_complete(folder, status["config_hash"]):
        return "complete", status
    if status["state"] == "running" and not is_alive(status):
        return "lost", status
    return status["state"], status


def why(state: Seen, status: Mapping[str, Any] | None) -> str:
    """Return why a run has ended before it was complete, in a line; nothing while it goes on."""
    if state == "lost":
        return "the process is gone without a word (killed?)"
    exception = status.get("exception") if status is not None and state != "complete" else None
    return "" if exception is None else in_a_line(exception)


def in_a_line(exception: Mapping[str, Any]) -> str:
    """Return class and message of an exception, or the class alone where it has no message (an interruption)."""
    return ": ".join(filter(None, (exception.get("type"), exception.get("message"))))


def note_end(folder: Path, kind: str, message: str) -> None:
    """Write, for a process that is gone and could not, that and why its run has failed."""
    status = read(folder)
    if status is not None and status["state"] == "running" and not is_alive(status):
        write_json(folder / FILE, status | {"state": "failed", "exception": {"type": kind, "message": message}})


def refuse_if_taken(folder: Path) -> dict[str, Any] | None:
    """Return the status of a folder's last attempt, if there was one.

    Raises:
        TakenError: another process is at it.
    """
    before = read(folder)
    at_work = before is not None and before["state"] == "running" and is_alive(before)
    if before is not None and at_work and not is_this_process(before) and not is_over(before):
        raise TakenError(folder)
    return before


def host() -> str:
    """Return a digest of this machine's name and, in a container, of which one."""
    with suppress(OSError):
        return _digest(f"{socket.gethostname()} {os.stat('/proc/self/ns/pid').st_ino}")  # noqa: PTH116
    return _digest(socket.gethostname())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def started(pid: int) -> float | None:
    """Return when a process started, in seconds; None when it is gone or only waits to be reaped."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


def is_this_process(status: Mapping[str, Any]) -> bool:
    """Return whether this very process has written the status."""
    return bool(status["host"] == host() and status["pid"] == os.getpid())


def _scheduled() -> list[str] | None:
    """Return number (of an array: ARRAY_ELEMENT, as SLURM's commands take it) and attempt of this SLURM job."""
    job, array, element = (os.environ.get(f"SLURM_{name}") for name in ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID"))
    attempt = os.environ.get("SLURM_RESTART_COUNT", "0")
    return None if job is None else [job if array is None else f"{array}_{element}", attempt]


def is_over(status: Mapping[str, Any]) -> bool:
    """Return whether SLURM has started the job again: an attempt that it killed elsewhere would seem to go on."""
    before, now = status.get("scheduled"), _scheduled()
    return before is not None and now is not None and before[0] == now[0] and before[1] != now[1]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _line(text: str) -> str:
    return " ".join(text.split())
