"""Runs a sweep on this machine, each job isolated from the others.

Each job is a process of its own, forked by a server that has imported the libraries and
done nothing else (multiprocessing's forkserver: no threads, no tensors, no GPU). It writes `job.log` (all that it
prints), `run.log` and `status.json` in its folder, and leads a session of its own: its death touches no other job and
no result. Nothing is returned but files.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mwanda.config import schema
from mwanda.job import status
from mwanda.sweep.overview import report
from mwanda.sweep.plan import Job, Plan, clear, seen
from mwanda.sweep.worker import run_job
from mwanda.system.secrets import hide_in_terminal


if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess


LOG = "job.log"

PATIENCE = 60.0
"""Seconds that a job is given to end after it was asked to."""

PRELOADED = (
    "mwanda.sweep.preload",
    "hydra",
    "hydra.core.override_parser.overrides_parser",
    "hydra._internal.config_loader_impl",
)


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
        devices = devices_for(self.parallel)
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
        elif seen(job.folder) in (None, "lost"):
            status.note_end(job.folder, "Exit", f"the process ended with {exit_code}: {_last_line(job.folder / LOG)}")
        return seen(job.folder) or "failed"


def _child(folder: str, gpu: str | None) -> None:
    """Be the process of one job: its own session, its own log, first in line when memory is short."""
    os.setsid()
    log = os.open(Path(folder) / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    hide_in_terminal()
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
    if gpu is not None:
        from mwanda.system import device

        device.see_only(gpu)
    _say(f"---- {time.strftime('%Y-%m-%d %H:%M:%S')}, process {os.getpid()}")
    sys.exit(run_job(Path(folder)))


def devices_for(parallel: int) -> list[str]:
    """Return the GPUs to be given to jobs that run at the same time, one each; with one job at a time it has all."""
    if parallel == 1:
        return []
    from mwanda.system import device

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
