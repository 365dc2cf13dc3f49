"""The plan of a sweep: its jobs, where each of them writes, and what is to become of it; see mwanda.sweep."""

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, MinLen
from pydantic import Field

from mwanda.config import schema
from mwanda.config.identity import RunSpec
from mwanda.errors import RecordError
from mwanda.job import status
from mwanda.job.record import Part, problem_of, read_json
from mwanda.job.results import RESULTS
from mwanda.sweep import naming
from mwanda.sweep.naming import DIGITS, LONGEST_LABEL, safe
from mwanda.system.environment import code
from mwanda.system.files import write_json
from mwanda.system.secrets import PLAIN, hidden, hidden_path


SCHEMA = "mwanda.sweep/1"

FILE = "sweep.json"

LEFTOVERS = (RESULTS, status.FILE, "checkpoint", "weights")
"""What `rerun=all` removes of a run: results and all that it could go on from."""

Action = Literal["run", "skip", "leave"]


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Args:
        folder: where it writes.
        overrides: what describes it.
        config_hash: of what it does.
        action: what was decided when the sweep was last started.
        command: the number of the command that asked for it.
    """

    folder: Path
    overrides: tuple[str, ...]
    config_hash: str
    action: Action
    command: int = 0


@dataclass
class Plan:
    """The jobs of a sweep.

    Args:
        folder: of the sweep.
        jobs: all that were ever planned for this folder, those of the last command first.
        commands: the arguments of all commands that were given for it, the last one last.
        code: the state of this project's code when it was last started.
    """

    folder: Path
    jobs: list[Job]
    commands: list[list[str]]
    code: dict[str, Any] = field(default_factory=code)

    @property
    def name(self) -> str:
        """What the sweep is called."""
        return self.folder.name

    @property
    def current(self) -> list[Job]:
        """The jobs of the last command."""
        return [job for job in self.jobs if job.command == len(self.commands) - 1]

    def save(self) -> None:
        """Write `sweep.json`."""
        jobs = [asdict(job) | {"folder": job.folder.name, "overrides": list(job.overrides)} for job in self.jobs]
        write_json(self.folder / FILE, {"schema": SCHEMA, "commands": self.commands, "code": self.code, "jobs": jobs})


class _Job(Part):
    folder: Annotated[str, Field(pattern=r"^[^/\\\x00]+$")]
    overrides: list[str]
    config_hash: str
    action: Action
    command: Annotated[int, Ge(0)]


class _Code(Part):
    commit: str | None = None
    dirty: bool | None = None
    difference: str | None = None


class _Plan(Part):
    """What a reader of sweep.json relies on."""

    commands: Annotated[list[list[str]], MinLen(1)]
    code: _Code
    jobs: list[_Job]


def read(folder: Path) -> Plan | None:
    """Return the plan in a sweep's folder, if there is one.

    Raises:
        RecordError: there is one that cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    found = read_json(path)
    problem = problem_of(_Plan, found)
    if problem is None:
        jobs = [
            Job(folder / each["folder"], tuple(each["overrides"]), each["config_hash"], each["action"], each["command"])
            for each in found["jobs"]
        ]
        if all(job.command < len(found["commands"]) and job.folder.name not in ("", "..") for job in jobs):
            return Plan(folder, jobs, found["commands"], found["code"])
        problem = "a job is of a command or a folder that there is not"
    raise RecordError(f"{path}: {problem}; remove it to plan the sweep anew, its jobs are found again by their folders")


def plans(folder: Path, damaged: list[RecordError] | None = None) -> list[Plan]:
    """Return the plans of all sweeps at or below a folder; what cannot be read is added to `damaged`."""
    found = []
    for place, inside, files in os.walk(folder.absolute()):
        if status.FILE in files:
            inside.clear()
        elif FILE in files:
            try:
                found += [plan for plan in [read(Path(place))] if plan is not None]
            except RecordError as error:
                if damaged is not None:
                    damaged.append(error)
    return found


@dataclass(frozen=True)
class Wanted:
    """A job that a command asks for.

    Args:
        spec: what it does; `overrides` is what is written down of it.
        overrides: what was typed for it, without Hydra's own settings.
        exports: the file or folder that it is to leave besides its results.
    """

    spec: RunSpec
    overrides: tuple[str, ...]
    exports: str | None = None


def plan(arguments: Sequence[str], wanted: Sequence[Wanted], name: str) -> Plan:
    """Return the sweep that a command asks for, joined to what its folder holds; nothing is written or removed.

    Args:
        arguments: as they were typed.
        wanted: its jobs, at least one.
        name: of the sweep.
    """
    settings = schema.read(wanted[0].spec.config)
    folder = Path(hidden_path(settings.sweep.folder)).expanduser().absolute() / name
    before = read(folder) or Plan(folder, [], [])
    typed = [hidden(each) for each in arguments if not each.startswith("rerun=")]
    commands = [each for each in before.commands if each != typed] + [typed]
    moved = {index: commands.index(each) for index, each in enumerate(before.commands)}
    unique = {each.spec.config_hash: each for each in wanted}
    overrides = {config_hash: tuple(map(hidden, each.overrides)) for config_hash, each in unique.items()}
    labels = dict(zip(unique, naming.labels(list(overrides.values())), strict=True))
    digits = naming.digits(unique)
    known = {job.config_hash: job.folder for job in before.jobs}
    jobs = []
    for config_hash, each in unique.items():
        place = known.get(config_hash, folder / f"{labels[config_hash]}-{config_hash[:digits]}")
        action = decide(place, config_hash, settings.rerun, each.exports)
        jobs.append(Job(place, overrides[config_hash], config_hash, action, len(commands) - 1))
    others = [
        Job(job.folder, job.overrides, job.config_hash, job.action, moved[job.command])
        for job in before.jobs
        if job.config_hash not in unique
    ]
    used = sorted({job.command for job in (*jobs, *others)})
    renumbered = [Job(**{**vars(job), "command": used.index(job.command)}) for job in (*jobs, *others)]
    return Plan(folder, renumbered, [commands[index] for index in used])


def decide(folder: Path, config_hash: str, rerun: schema.Rerun, exports: str | None = None) -> Action:
    """Return what is to become of a job; see the module."""
    state = seen(folder)
    if state == "running":
        return "leave"
    if rerun == "all":
        return "run"
    if status.is_complete(folder, config_hash):
        return "run" if exports and not (folder / exports).exists() and rerun == "unfinished" else "skip"
    if state in (None, "complete"):  # or its results have been removed
        return "skip" if rerun == "failed" else "run"
    return "skip" if rerun == "none" else "run"


def clear(plan: Plan) -> None:
    """Remove what `rerun=all` makes again: results and checkpoints of the jobs that are about to run."""
    for job in plan.current:
        for name in LEFTOVERS if job.action == "run" else ():
            place = job.folder / name
            shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)


def name_of(arguments: Sequence[str], wanted: Sequence[Wanted], experiment: str | None) -> str:
    """Return what a sweep is called; see the module."""
    given = wanted[0].spec.config["sweep"]["name"]
    typed = [hidden(each).partition("=")[2] for each in arguments if each.startswith("name=")]
    if given is not None:
        return hidden(str(given), PLAIN)
    if typed or experiment:
        return safe([experiment or "", *typed][-1], LONGEST_LABEL) or "sweep"
    keys = naming.varying([tuple(map(hidden, each.overrides)) for each in wanted])
    varying = "-".join(dict.fromkeys(map(naming.short, keys)))
    hashes = sorted(each.spec.config_hash for each in wanted)
    return f"{safe(varying, LONGEST_LABEL) or 'sweep'}-{hashlib.sha256(' '.join(hashes).encode()).hexdigest()[:DIGITS]}"


def seen(folder: Path) -> status.Seen | None:
    """Return the state of a job as it looks from here; None where it has not begun."""
    found = status.seen(folder)
    return found[0] if found else None
