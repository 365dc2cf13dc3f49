"""The state of runs, as tables that people read."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mwanda.job import status
from mwanda.job.status import Seen
from mwanda.sweep.naming import command_line
from mwanda.sweep.plan import Plan, plans, seen


def report(plan: Plan) -> int:
    """Print what became of the jobs of the last command, and how to run again what failed; return 1 if any did."""
    from mwanda.system.terminal import console

    out, found = console(), rows_of(plan)
    out.print()
    out.print(table(found))
    out.print(f"{plan.folder}: {counts(found)}", markup=False, highlight=False, soft_wrap=True)
    bad = has_failed(found) or any(row.state == "interrupted" for row in found)
    if bad:
        command = command_line([*plan.commands[-1], "rerun=failed"])
        out.print(f"again, those that failed: {command}", markup=False, highlight=False, soft_wrap=True)
    return int(bad)


LONGEST_ERROR = 300

COLOURS = {"complete": "green", "running": "cyan", "failed": "red", "lost": "red", "interrupted": "yellow"}
COLOURS |= {"unreadable": "red"}


@dataclass(frozen=True)
class Row:
    """A run in the table; `place` is its folder, as people read it."""

    place: str
    state: Seen
    status: Mapping[str, Any] | None


def rows(folder: Path) -> list[Row]:
    """Return all runs below a folder, those that a sweep has planned and not started included."""
    found = {path: status.seen(path) for path in _runs(folder)}
    states: dict[Path, tuple[Seen, Mapping[str, Any] | None]] = {path: one for path, one in found.items() if one}
    for job in (job for plan in plans(folder) for job in plan.jobs):
        state, told = states.get(job.folder, ("waiting", None))
        states[job.folder] = ("skipped" if job.action == "skip" and state == "complete" else state), told
    base = folder.absolute()
    return [
        Row(_printable(os.path.relpath(path, base) if path != base else base.name), state, told)
        for path, (state, told) in sorted(states.items())
    ]


def rows_of(plan: Plan) -> list[Row]:
    """Return the jobs of a sweep's last command as they look now."""
    places = {job.folder.name for job in plan.current}
    return [row for row in rows(plan.folder) if row.place in places]


def commands_for_failed(plan: Plan) -> list[str]:
    """Return the commands that run again what failed, was interrupted or is lost, and nothing else."""
    broken = {job.command for job in plan.jobs if seen(job.folder) in ("failed", "lost", "interrupted", "unreadable")}
    return [command_line([*plan.commands[index], "rerun=failed"]) for index in sorted(broken)]


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
            f"{row.status['seconds']:.0f}" if row.status and "seconds" in row.status else "",
            Text(error_of(row)),
        )
    return made


def error_of(row: Row) -> str:
    """Return why a run ended, in a line."""
    return status.why(row.state, row.status)[:LONGEST_ERROR]


def counts(rows: Iterable[Row]) -> str:
    """Return how many runs there are of each state, in a line."""
    found = Counter(row.state for row in rows)
    return f"{sum(found.values())} runs: " + (", ".join(f"{count} {state}" for state, count in found.items()) or "none")


def has_failed(rows: Iterable[Row]) -> bool:
    """Return whether one of the runs failed, is lost or cannot be read."""
    return any(row.state in ("failed", "lost", "unreadable") for row in rows)


def _printable(path: str) -> str:
    """Return a path as a terminal can show it: names of files need not be text."""
    return os.fsencode(path).decode(errors="replace")


def _stage(row: Row) -> str:
    if not row.status or "stage" not in row.status:
        return ""
    stage, blocks, progress = row.status["stage"], row.status["blocks"], row.status["progress"]
    if blocks:
        return f"{stage}, block {row.status['block']} of {blocks}"
    return f"{stage}, {progress:.0%}" if progress is not None else str(stage)


def _runs(folder: Path) -> Iterator[Path]:
    """Yield the folders of runs below a folder, which may be one itself; nothing within a run is looked at."""
    for place, inside, files in os.walk(folder.absolute()):
        if status.FILE in files:
            inside.clear()
            yield Path(place)
