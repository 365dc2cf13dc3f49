"""What a SLURM cluster says of itself and of the jobs of a sweep."""

import re
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

from mwanda.errors import InputError


if TYPE_CHECKING:
    from submitit.slurm.slurm import SlurmInfoWatcher


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


def wait() -> None:
    """Wait until every job that submitit has sent from this process has ended: its launcher stops at the first loss."""
    from submitit.slurm.slurm import SlurmJob

    queue = SlurmJob.watcher
    while not all(queue.is_done(job) for job in list(queue._registered)):
        time.sleep(1)


def ask_the_queue() -> None:
    """Have submitit learn of its jobs from `squeue`.

    It asks `sacct`, which many clusters lack; then it waits without end for a job that dies without leaving a result.
    """
    from submitit.slurm.slurm import SlurmJob

    SlurmJob.watcher = _watcher()(delay_s=SECONDS_BETWEEN_LOOKS)


def _watcher() -> "type[SlurmInfoWatcher]":
    from submitit.slurm.slurm import SlurmInfoWatcher

    class Queue(SlurmInfoWatcher):
        """Knows a job to have ended when `squeue` says so, or no longer knows it."""

        def update(self) -> None:
            self._num_calls += 1
            self._last_status_check = time.time()
            found = states()
            if found is None:  # nobody knows: no reason to give up a job
                return
            for job in self._registered - self._finished:
                self._info_dict[job] = {"JobID": job, "State": found.get(job, "GONE")}
                if self.is_done(job, mode="cache"):
                    self._finished.add(job)

        def is_done(self, job_id: str, mode: Any = "standard") -> bool:
            return self.get_state(job_id, mode=mode) in ENDED

    return Queue
