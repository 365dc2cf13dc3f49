"""Sweeps: many runs that are planned, recorded and taken up again together.

    python run.py --multirun criterion=wanda,mwanda sparsity=0.3,0.5 [sweep.name=NAME] [sweep.parallel=2]
    python -m mwanda.sweep JOB_FOLDER        one planned job, here and now (what a cluster's job calls)

**Folders.** `outputs/sweeps/<name>/<job>/`. `<name>` is `sweep.name`, or `name` if that was typed, or the experiment,
or what varies and a digest of the overrides: the same whenever the same sweep is typed. `<job>` is what varies and
eight digits of the hash of the run's semantic configuration (`schema.config_hash`): a job is found again by that hash,
whatever else the sweep varies by then. `sweep.json` is the plan: every job with its overrides.

**Starting a sweep again.** `rerun` decides, when the sweep is started:

    unfinished   (default) skip what is complete, run all others; half-done runs go on behind their last finished block
    failed       only what has failed, was interrupted or is lost; what has never been started stays so
    none         only what has never been started
    all          everything, from the beginning; finished results and checkpoints are removed first

A job that another process is at work on is left alone. The plan says what was decided (`action`: run, skip or leave),
so that whoever runs a job need not decide again: a job that is requeued resumes, also under `rerun=all`.

**Isolation.** On this machine each job is a process of its own, forked by a server that has imported the libraries and
done nothing else (multiprocessing's forkserver: no threads, no tensors, no GPU). It writes `job.log` (all that it
prints), `run.log` and `status.json` in its folder, and leads a session of its own: its death touches no other job and
no result. Nothing is returned but files.
"""

import hashlib
import json
import logging
import os
import re
import shlex
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mwanda import schema, status
from mwanda.errors import InputError, MwandaError
from mwanda.interruption import Interrupted
from mwanda.record import RESULTS, code, write_json


if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess


SCHEMA = "mwanda.sweep/1"
FILE = "sweep.json"
LOG = "job.log"
LEFTOVERS = (RESULTS, status.FILE, "checkpoint", "weights")
"""What `rerun=all` removes of a run: results and all that it could go on from."""

DIGITS = 8
LONGEST_LABEL = 100
LONGEST_VALUE = 40
PATIENCE = 60.0
"""Seconds that a job is given to end after it was asked to."""

PRELOADED = (
    "mwanda.preload",
    "hydra",
    "hydra.core.override_parser.overrides_parser",
    "hydra._internal.config_loader_impl",
)

Action = Literal["run", "skip", "leave"]

logger = logging.getLogger(__name__)


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

    def rows(self) -> list[status.Row]:
        """Return the jobs of the last command as they look now."""
        places = {job.folder.name for job in self.current}
        return [row for row in status.rows(self.folder) if row.place in places]

    def commands_for_failed(self) -> list[str]:
        """Return the commands that run again what failed, was interrupted or is lost, and nothing else."""
        broken = {job.command for job in self.jobs if _seen(job.folder) in ("failed", "lost", "interrupted")}
        return [command_line([*self.commands[index], "rerun=failed"]) for index in sorted(broken)]


def command_line(arguments: Sequence[str]) -> str:
    """Return a command as it is typed in a shell; the arguments of another program than run.py begin with its name."""
    if list(arguments[:2]) == ["-m", "mwanda.sbatch"]:  # -m alone is Hydra's --multirun
        return shlex.join(["python", *arguments])
    return shlex.join(["python", os.path.relpath(schema.CONF.parent / "run.py"), *arguments])


def read(folder: Path) -> Plan | None:
    """Return the plan in a sweep's folder, if there is one."""
    path = folder / FILE
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    jobs = [
        Job(folder / each["folder"], tuple(each["overrides"]), each["config_hash"], each["action"], each["command"])
        for each in found["jobs"]
    ]
    return Plan(folder, jobs, found["commands"], found["code"])


def plans(folder: Path) -> list[Plan]:
    """Return the plans of all sweeps at or below a folder."""
    found = []
    for place, inside, files in os.walk(folder.absolute()):
        if status.FILE in files:
            inside.clear()
        elif FILE in files:
            found += [plan for plan in [read(Path(place))] if plan is not None]
    return found


# ---- planning


@dataclass(frozen=True)
class Wanted:
    """A job that a command asks for: what was typed for it, and the resolved configuration."""

    overrides: tuple[str, ...]
    config: Mapping[str, Any]
    exports: str | None = None
    """The file or folder that it is to leave besides its results."""


def plan(arguments: Sequence[str], wanted: Sequence[Wanted], name: str) -> Plan:
    """Return the sweep that a command asks for, joined to what its folder holds; nothing is written or removed.

    Args:
        arguments: as they were typed.
        wanted: its jobs, at least one.
        name: of the sweep.
    """
    settings = schema.read(wanted[0].config)
    folder = Path(settings.sweep.folder).expanduser().absolute() / name
    before = read(folder) or Plan(folder, [], [])
    typed = [each for each in arguments if not each.startswith("rerun=")]
    commands = [each for each in before.commands if each != typed] + [typed]
    moved = {index: commands.index(each) for index, each in enumerate(before.commands)}
    unique = {schema.config_hash(each.config): each for each in wanted}
    labels = dict(zip(unique, _labels([each.overrides for each in unique.values()]), strict=True))
    digits = _digits(unique)
    known = {job.config_hash: job.folder for job in before.jobs}
    jobs = []
    for config_hash, each in unique.items():
        place = known.get(config_hash, folder / f"{labels[config_hash]}-{config_hash[:digits]}")
        action = decide(place, config_hash, settings.rerun, each.exports)
        jobs.append(Job(place, each.overrides, config_hash, action, len(commands) - 1))
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
    state = _seen(folder)
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
    given = wanted[0].config["sweep"]["name"]
    typed = [each.partition("=")[2] for each in arguments if each.startswith("name=")]
    if given is not None:
        return str(given)
    if typed or experiment:
        return _safe([experiment or "", *typed][-1], LONGEST_LABEL) or "sweep"
    varying = "-".join(dict.fromkeys(_short(key) for key in _varying([each.overrides for each in wanted])))
    hashes = sorted(schema.config_hash(each.config) for each in wanted)
    return (
        f"{_safe(varying, LONGEST_LABEL) or 'sweep'}-{hashlib.sha256(' '.join(hashes).encode()).hexdigest()[:DIGITS]}"
    )


def _seen(folder: Path) -> status.Seen | None:
    found = status.seen(folder)
    return found[0] if found else None


def _digits(hashes: Iterable[str]) -> int:
    """Return how many digits tell the hashes apart, `DIGITS` at least."""
    every = list(hashes)
    return next(n for n in range(DIGITS, 65) if len({each[:n] for each in every}) == len(every))


def _labels(jobs: Sequence[Sequence[str]]) -> list[str]:
    keys = _varying(jobs)
    labels = []
    for overrides in jobs:
        values = dict(_split(each) for each in overrides)
        parts = [f"{_safe(_short(key))}_{_safe(values[key])}" for key in keys if key in values]
        labels.append("-".join(parts)[:LONGEST_LABEL].strip("-_.") or "run")
    return labels


def _varying(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Return the keys that not all jobs set to one value."""
    values: dict[str, set[str]] = {}
    for overrides in jobs:
        for each in overrides:
            key, value = _split(each)
            values.setdefault(key, set()).add(value)
    present = [{_split(each)[0] for each in overrides} for overrides in jobs]
    return [key for key, found in values.items() if len(found) > 1 or not all(key in keys for keys in present)]


def _split(override: str) -> tuple[str, str]:
    key, _, value = override.lstrip("+~").partition("=")
    return key, value


def _short(key: str) -> str:
    """Return the last part of a key, with its group where it would say little by itself."""
    *_, group, last = ["", *key.split(".")]
    return (
        f"{group}.{last}"
        if last in ("seed", "path", "codes", "corpus", "name") and group not in ("", "langs")
        else last
    )


def _safe(value: str, longest: int = LONGEST_VALUE) -> str:
    """Return a text in letters that every file system, every shell and a value of Hydra's take as they are."""
    return re.sub(r"[^a-z0-9._]+", "-", value.lower()).strip("-.")[:longest]


# ---- running


def go(plan: Plan, rerun: schema.Rerun, parallel: int = 1, *, fail_fast: bool = False) -> int:
    """Run the jobs of the last command on this machine, each isolated from the others, and say what became of them.

    Returns:
        0 when all are complete, 1 when one is not, 130 after Ctrl-C.
    """
    if rerun == "all":
        clear(plan)
    plan.save()
    runner = _Runner(plan, parallel, fail_fast)
    interrupted = False
    with _terminated_as_interrupted():
        try:
            runner.run()
        except KeyboardInterrupt:
            interrupted = True
            runner.stop()
    return 130 if interrupted else report(plan)


def report(plan: Plan) -> int:
    """Print what became of the jobs of the last command, and how to run again what failed; return 1 if any did."""
    from mwanda.display import console

    out, rows = console(), plan.rows()
    out.print()
    out.print(status.table(rows))
    out.print(f"{plan.folder}: {status.counts(rows)}", markup=False, highlight=False, soft_wrap=True)
    bad = status.has_failed(rows) or any(row.state == "interrupted" for row in rows)
    if bad:
        command = command_line([*plan.commands[-1], "rerun=failed"])
        out.print(f"again, those that failed: {command}", markup=False, highlight=False, soft_wrap=True)
    return int(bad)


@dataclass
class _Runner:
    plan: Plan
    parallel: int
    fail_fast: bool
    running: dict[int, tuple["ForkServerProcess", Job, float]] = field(default_factory=dict)
    """By place, of which there are `parallel`."""

    def run(self) -> None:
        import multiprocessing
        from multiprocessing.connection import wait

        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(PRELOADED))
        todo = [job for job in self.plan.current if job.action == "run"]
        skipped = len(self.plan.current) - len(todo)
        _say(f"{self.plan.folder}: {len(todo)} jobs to run, {skipped} to skip")
        devices = _devices(self.parallel)
        waiting, done = iter(todo), 0
        while True:
            for place in sorted(set(range(self.parallel)) - self.running.keys()):
                job = next(waiting, None)
                if job is not None:
                    job.folder.mkdir(parents=True, exist_ok=True)
                    device = devices[place % len(devices)] if devices else None
                    process = context.Process(target=_child, args=(str(job.folder), device), name=job.folder.name)
                    process.start()
                    self.running[place] = process, job, time.monotonic()
            if not self.running:
                return
            ended = set(wait([process.sentinel for process, *_ in self.running.values()]))
            for place, (process, job, began) in list(self.running.items()):
                if process.sentinel in ended:
                    process.join()
                    del self.running[place]
                    done += 1
                    state = self._ended(process, job)
                    _say(f"{done:>4}/{len(todo)}  {state}  {time.monotonic() - began:.0f} s  {job.folder.name}")
                    if state != "complete" and self.fail_fast:
                        _say("the sweep stops at its first failure (sweep.fail_fast)")
                        self.stop()
                        return

    def stop(self) -> None:
        """Ask the running jobs to end as Ctrl-C does, and end them after a while."""
        for process, *_ in self.running.values():
            if process.pid is not None and process.is_alive():
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGINT)
        until = time.monotonic() + PATIENCE
        try:
            for process, *_ in self.running.values():
                process.join(max(0.0, until - time.monotonic()))
        finally:  # also after a second Ctrl-C
            for process, *_ in self.running.values():
                if process.is_alive():
                    process.kill()
                    process.join()
        self.running.clear()

    def _ended(self, process: "ForkServerProcess", job: Job) -> str:
        """Return the state of a job whose process is gone, and write it where the process could not."""
        exit_code = process.exitcode or 0
        if exit_code < 0:
            name = signal.Signals(-exit_code).name
            hint = "; out of memory? (dmesg)" if name == "SIGKILL" else ""
            status.note_end(job.folder, name, f"the process was killed{hint}")
        elif _seen(job.folder) in (None, "lost"):
            status.note_end(job.folder, "Exit", f"the process ended with {exit_code}: {_last_line(job.folder / LOG)}")
        return _seen(job.folder) or "failed"


def run_job(folder: Path) -> int:
    """Run one job of a plan in this process; return the exit code.

    It is 0 for complete, 2 for bad input, 1 for another failure, and that of mwanda.interruption after a signal.

    Raises:
        InputError: no sweep has planned a job for the folder.
    """
    folder = folder.absolute()
    found = read(folder.parent)
    job = next((each for each in found.jobs if each.folder == folder), None) if found else None
    if found is None or job is None:
        raise InputError(f"{folder}: no {FILE} beside it plans such a job; start the sweep by run.py --multirun")
    _warn_of_changed_code(found)
    try:
        _run(job, found.name)
    except Interrupted as interrupted:
        print(f"interrupted by {interrupted}; started again, it goes on", file=sys.stderr)
        return interrupted.exit_code
    except MwandaError as error:
        record_failure(job, error)
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        record_failure(job, error)
        traceback.print_exc()
        return 1
    return 0


def assigned(config: Mapping[str, Any], overrides: Sequence[str]) -> Job:
    """Return the job that its sweep has planned for a resolved configuration, or else one that suits it.

    Not every job is planned: other sweepers of Hydra choose their jobs one after the other.
    """
    settings, config_hash = schema.read(config), schema.config_hash(config)
    folder = Path(settings.sweep.folder).expanduser().absolute() / str(settings.sweep.name)
    found = read(folder)
    if found is not None:
        _warn_of_changed_code(found)
    for job in found.jobs if found else ():
        if job.config_hash == config_hash:
            return job
    label = "-".join("_".join(map(_safe, _split(each))) for each in overrides if not each.startswith("hydra"))
    place = folder / f"{label[:LONGEST_LABEL]}-{config_hash[:DIGITS]}"
    return Job(place, tuple(overrides), config_hash, decide(place, config_hash, settings.rerun))


def _run(job: Job, study: str) -> None:
    from mwanda.command_line import composed
    from mwanda.job import run

    config, names = composed([*job.overrides, f"sweep.name={study}"])
    config |= {"output_dir": str(job.folder), "resume": True}
    run(config, job.folder, list(job.overrides), names, study)


def record_failure(job: Job, error: BaseException) -> None:
    """Write a status where the failure came before the run could write its own."""
    found = status.seen(job.folder)
    if found is None or not (found[0] == "running" or status.is_this_process(found[1])):
        status.Reporter(job.folder, job.config_hash, job.overrides, job.folder.name).end("failed", error)


def _warn_of_changed_code(plan: Plan) -> None:
    now = code()
    if plan.code and now != plan.code:
        before, after = (
            f"{each['commit'] or 'no checkout'}{' and changes' if each['dirty'] else ''}" for each in (plan.code, now)
        )
        logger.warning("the code has changed since the sweep was started: %s, now %s", before, after)


def _child(folder: str, gpu: str | None) -> None:
    """Be the process of one job: its own session, its own log, first in line when memory is short."""
    os.setsid()
    log = os.open(Path(folder) / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
    if gpu is not None:
        from mwanda import device

        device.see_only(gpu)
    _say(f"---- {time.strftime('%Y-%m-%d %H:%M:%S')}, process {os.getpid()}")
    sys.exit(run_job(Path(folder)))


def _devices(parallel: int) -> list[str]:
    """Return the GPUs to be given to jobs that run at the same time, one each; with one job at a time it has all."""
    if parallel == 1:
        return []
    from mwanda import device

    return device.visible()


def _last_line(path: Path) -> str:
    with suppress(OSError):
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
    return "it printed nothing"


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C, so that the children are told."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one planned job."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    if len(typed) != 1 or typed[0].startswith("-"):
        print("usage: python -m mwanda.sweep JOB_FOLDER", file=sys.stderr)
        return 2
    try:
        return run_job(Path(typed[0]))
    except MwandaError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
