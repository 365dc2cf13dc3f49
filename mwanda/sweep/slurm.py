"""Asks a SLURM cluster about itself and about the jobs of a sweep."""

import io
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from typing import TYPE_CHECKING, Any

from mwanda.errors import InputError
from mwanda.sweep import overview


if TYPE_CHECKING:
    from mwanda.sweep.plan import Plan


ENDED = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "REVOKED",
    "TIMEOUT",
    "GONE",
)
"""States that a job does not leave by itself; GONE is ours, for one that the cluster has forgotten."""

SECONDS_BETWEEN_LOOKS = 60
"""At most, while the launcher waits: how late the end of a job is noticed that left no word."""


def ask(*command: str) -> str | None:
    """Return what one of SLURM's commands prints, or None where it is not there or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def check_array(jobs: int) -> None:
    """Refuse a sweep that is larger than the largest array that the cluster allows, where it says so.

    Raises:
        InputError: it is.
    """
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config") or "")
    if found and jobs > int(found[1]):
        raise InputError(
            f"{jobs} jobs are more than an array of this cluster holds (MaxArraySize={found[1]}); split the sweep, "
            f"or with --multirun set hydra.sweeper.max_batch_size={found[1]}"
        )


def states() -> dict[str, str] | None:
    """Return the state of each of this user's jobs, by number and element, or None when the cluster does not answer."""
    answer = ask("squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i|%T")
    if answer is None:
        return None
    return dict(line.split("|") for line in answer.splitlines() if line.count("|") == 1)


def follow(run: Callable[[], Any], plan: "Plan") -> int:
    """Have Hydra and submitit run a sweep on the cluster, wait for all of it, and say what became of its jobs.

    Neither is believed: an exception in a job is a success to SLURM, and Hydra gives up at the first job that is lost.
    What counts is the status that each job has written.

    Returns:
        0 when all jobs are complete, 1 when one is not, 130 after Ctrl-C.
    """
    from submitit.slurm.slurm import SlurmJob

    queue = SlurmJob.watcher = watcher()(delay_s=SECONDS_BETWEEN_LOOKS)
    where = f"python -m mwanda.status {shlex.quote(str(plan.folder))}"
    print(f"{len(plan.current)} jobs go to SLURM and outlive this terminal; {where} shows them", file=sys.stderr)
    said, failed = io.StringIO(), False
    try:
        try:
            with redirect_stderr(said):  # Hydra prints the traceback of the first job that is lost
                run()
        except SystemExit as ended:
            failed = bool(ended.code)
        queue.wait()
    except KeyboardInterrupt:
        numbers = " ".join(dict.fromkeys(job.partition("_")[0] for job in queue.jobs))
        print(f"the jobs go on: {where}; scancel {numbers or 'NUMBER'} ends them", file=sys.stderr)
        return 130
    if not queue.jobs:
        print("error: nothing was submitted:", _last_line(said.getvalue()), file=sys.stderr)
        return 1
    return overview.report(plan) or int(failed)


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason was given")


def watcher() -> Any:
    """Return how submitit is to learn what becomes of its jobs: by `squeue`.

    It asks `sacct`, which many clusters lack; then it waits without end for a job that dies without leaving a result.
    """
    from submitit.slurm.slurm import SlurmInfoWatcher

    class Queue(SlurmInfoWatcher):
        """Takes a job for ended when `squeue` says so, or no longer knows it."""

        @property
        def jobs(self) -> list[str]:
            """All that were sent from here."""
            return sorted(self._registered)

        def update(self) -> None:
            self._num_calls += 1
            self._last_status_check = time.time()
            found = states()
            if found is None:  # nobody answers: no reason to give up a job
                return
            for job in self._registered - self._finished:
                self._info_dict[job] = {"JobID": job, "State": found.get(job, "GONE")}
                if self.is_done(job, mode="cache"):
                    self._finished.add(job)

        def is_done(self, job_id: str, mode: Any = "standard") -> bool:
            return self.get_state(job_id, mode=mode) in ENDED

        def wait(self) -> None:
            """Wait until all jobs have ended."""
            while not all([self.is_done(job) for job in self.jobs]):
                time.sleep(1)

    return Queue
