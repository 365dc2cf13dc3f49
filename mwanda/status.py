"""What a run is doing, for whoever looks from outside: `status.json` in its folder.

    python -m mwanda.status DIR …      all runs below DIR, at any time, also while they run

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

import argparse
import hashlib
import json
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from mwanda.errors import ConfigurationError
from mwanda.record import RESULTS, code, write_json


if TYPE_CHECKING:
    from mwanda.progress import Progress


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
Seen = Literal["running", "complete", "failed", "interrupted", "lost", "waiting", "skipped"]
"""What a reader makes of it: besides the states `lost`, `waiting` (planned by a sweep and not started) and `skipped`
(complete before its sweep was last started)."""

STAGES: dict[str, Stage] = {"calibrate and prune": "prune"}
"""Stages that the progress of a run calls otherwise."""

LONGEST_ERROR = 300
COLOURS = {"complete": "green", "running": "cyan", "failed": "red", "lost": "red", "interrupted": "yellow"}
T = TypeVar("T")


class Reporter:
    """Writes the status of one run; with no folder (a process that does not write) it does nothing.

    Args:
        folder: of the run.
        config_hash: of what it does.
        overrides: what was typed for it.
        name: what people read.

    Raises:
        ConfigurationError: another process is at work in the folder.
    """

    def __init__(self, folder: Path | None, config_hash: str, overrides: Sequence[str], name: str) -> None:
        self._folder, self._lock, self._over = folder, threading.Lock(), threading.Event()
        self._clock = self._written = perf_counter()
        if folder is None:
            return
        before = read(folder)
        at_work = before is not None and before["state"] == "running" and is_alive(before)
        if before is not None and at_work and not is_this_process(before) and not _is_over(before):
            raise _taken(folder)
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
            "born": _born(os.getpid()),
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
        threading.Thread(target=self._beat, name="status", daemon=True).start()

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
                self._update(state=state, exception=exception)

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
        own = self._folder / f".{FILE}.{host()}.{os.getpid()}"
        write_json(own, self._content)
        try:
            os.link(own, self._folder / FILE)  # which, other than a rename, never replaces
        except FileExistsError:
            if read(self._folder) is not None:
                raise _taken(self._folder) from None
        except OSError:  # a file system without links
            pass
        finally:
            own.unlink()

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            with self._lock, suppress(OSError):  # a disk that is full for a while must not end the thread
                if not self._over.is_set():
                    self._update()


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


def read(folder: Path) -> dict[str, Any] | None:
    """Return what status.json of a run says, if there is one that can be read."""
    with suppress(OSError, ValueError):
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if isinstance(found, dict) and found.get("schema") == SCHEMA:
            return found
    return None


def is_alive(status: Mapping[str, Any]) -> bool:
    """Return whether the process that wrote `running` is still there, as far as can be told from here."""
    if status["host"] == host():
        born = _born(status["pid"])
        return born is not None and bool(abs(born - status["born"]) < SAME_BIRTH)
    silent = datetime.now(UTC) - datetime.fromisoformat(status["updated"])
    return silent.total_seconds() < STALE


def is_complete(folder: Path, config_hash: str) -> bool:
    """Return whether the folder holds the complete results of that configuration."""
    with suppress(OSError, ValueError):
        found = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        return bool(found["status"] == "complete" and found["config_hash"] == config_hash)
    return False


def seen(folder: Path) -> tuple[Seen, dict[str, Any]] | None:
    """Return the state of a run as it looks from here, and its status; None where no run has begun."""
    status = read(folder)
    if status is None:
        return None
    if status["state"] != "complete" and is_complete(folder, status["config_hash"]):
        return "complete", status
    if status["state"] == "running" and not is_alive(status):
        return "lost", status
    return status["state"], status


def note_end(folder: Path, kind: str, message: str) -> None:
    """Write, for a process that is gone and could not, that and why its run has failed."""
    status = read(folder)
    if status is not None and status["state"] == "running":
        write_json(folder / FILE, status | {"state": "failed", "exception": {"type": kind, "message": message}})


def _taken(folder: Path) -> ConfigurationError:
    return ConfigurationError("output_dir", folder, "another process is at work there; wait for it, or stop it")


def host() -> str:
    """Return a digest of this machine's name and, in a container, of which one."""
    with suppress(OSError):
        return _digest(f"{socket.gethostname()} {os.stat('/proc/self/ns/pid').st_ino}")  # noqa: PTH116
    return _digest(socket.gethostname())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _born(pid: int) -> float | None:
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


def _is_over(status: Mapping[str, Any]) -> bool:
    """Return whether SLURM has started the job again: an attempt that it killed elsewhere would seem to go on."""
    before, now = status.get("scheduled"), _scheduled()
    return before is not None and now is not None and before[0] == now[0] and before[1] != now[1]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _line(text: str) -> str:
    return " ".join(text.split())


# ---- what people see


@dataclass(frozen=True)
class Row:
    """A run in the table; `place` is its folder, as people read it."""

    place: str
    state: Seen
    status: Mapping[str, Any] | None


def rows(folder: Path) -> list[Row]:
    """Return all runs below a folder, those that a sweep has planned and not started included."""
    from mwanda.sweep import plans

    found = {path: seen(path) for path in _runs(folder)}
    states: dict[Path, tuple[Seen, Mapping[str, Any] | None]] = {path: one for path, one in found.items() if one}
    for job in (job for plan in plans(folder) for job in plan.jobs):
        state, status = states.get(job.folder, ("waiting", None))
        states[job.folder] = ("skipped" if job.action == "skip" and state == "complete" else state), status
    base = folder.absolute()
    return [
        Row(os.path.relpath(path, base) if path != base else base.name, state, status)
        for path, (state, status) in sorted(states.items())
    ]


def table(rows: Iterable[Row]) -> Any:
    """Return runs by state, stage and error as a table of rich."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None)
    made.add_column("run", overflow="fold")
    for heading in ("state", "stage"):
        made.add_column(heading)
    made.add_column("seconds", justify="right")
    made.add_column("error", overflow="fold")
    for row in rows:
        made.add_row(
            Text(row.place),
            Text(row.state, style=COLOURS.get(row.state, "dim")),
            _stage(row) if row.state not in ("complete", "skipped") else "",
            f"{row.status['seconds']:.0f}" if row.status else "",
            Text(error_of(row)),
        )
    return made


def error_of(row: Row) -> str:
    """Return why a run ended, in a line."""
    exception = row.status["exception"] if row.status else None
    if row.state == "lost":
        return "the process is gone without a word (killed?)"
    if exception is None or row.state == "complete":
        return ""
    return f"{exception['type']}: {exception['message']}"[:LONGEST_ERROR]


def counts(rows: Iterable[Row]) -> str:
    """Return how many runs there are of each state, in a line."""
    found = Counter(row.state for row in rows)
    return f"{sum(found.values())} runs: " + (", ".join(f"{count} {state}" for state, count in found.items()) or "none")


def has_failed(rows: Iterable[Row]) -> bool:
    """Return whether one of the runs failed or is lost."""
    return any(row.state in ("failed", "lost") for row in rows)


def _stage(row: Row) -> str:
    if row.status is None:
        return ""
    stage, blocks, progress = row.status["stage"], row.status["blocks"], row.status["progress"]
    if blocks:
        return f"{stage}, block {row.status['block']} of {blocks}"
    return f"{stage}, {progress:.0%}" if progress is not None else str(stage)


def _runs(folder: Path) -> Iterator[Path]:
    """Yield the folders of runs below a folder, which may be one itself; nothing within a run is looked at."""
    for place, inside, files in os.walk(folder.absolute()):
        if FILE in files:
            inside.clear()
            yield Path(place)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the runs below folders; return 1 when one failed or is lost, else 0."""
    from mwanda.display import console
    from mwanda.sweep import plans

    parser = argparse.ArgumentParser(
        prog="python -m mwanda.status",
        description="What became of the runs below a folder: complete, failed (stage and error), running, waiting …",
    )
    parser.add_argument("folder", nargs="*", type=Path, default=[Path("outputs")], metavar="DIR")
    failed = False
    for folder in parser.parse_args(arguments).folder:
        if not folder.is_dir():
            parser.error(f"{folder}: there is no such folder")
        found = rows(folder)
        out = console()
        out.print(table(found))
        out.print(counts(found), markup=False, highlight=False)
        for command in (command for plan in plans(folder) for command in plan.commands_for_failed()):
            out.print(f"again, those that failed: {command}", markup=False, highlight=False, soft_wrap=True)
        failed = failed or has_failed(found)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
