"""A SLURM job array of a planned sweep: its script and its resources."""

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM, SIGUSR2
from typing import TYPE_CHECKING

from mwanda.errors import ConfigurationError, InputError, MwandaError
from mwanda.system.interruption import TRY_AGAIN


if TYPE_CHECKING:
    from mwanda.sweep.plan import Job


SCRIPT, LOGS, LOG = "array.sh", "slurm", "job.log"
"""The script and what SLURM itself says, in the folder of the sweep; what a job prints, in its own."""

PATIENCE = 600
"""Seconds for which a job waits that was told to end, and does not know why."""


@dataclass(frozen=True)
class Resources:
    """What each job of an array asks of the cluster, in the words of `sbatch`.

    Args:
        time: until SLURM ends the job.
        memory: of the node.
        processors: cores.
        devices: GPUs.
        parallel: jobs of the array that run at the same time.
        warning: seconds before the end at which the job is told of it.
        requeues: how often a job that ran out of time is queued again.
        partition: None is the cluster's default.
        account: None is the user's default.
        options: of sbatch, besides these, as they are typed.
        setup: shell commands before the job.

    Raises:
        ConfigurationError: a value cannot be used.
    """

    time: str = "4:00:00"
    memory: str = "32G"
    processors: int = 4
    devices: int = 0
    parallel: int = 16
    warning: int = 120
    requeues: int = 20
    partition: str | None = None
    account: str | None = None
    options: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key, value, least in (
            ("--cpus", self.processors, 1),
            ("--gpus", self.devices, 0),
            ("--parallel", self.parallel, 1),
            ("--warning", self.warning, 1),
            ("--requeues", self.requeues, 0),
        ):
            if value < least:
                raise ConfigurationError(key, value, f"must be at least {least}")
        if not re.fullmatch(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}", self.time):
            raise ConfigurationError("--time", self.time, "is none of MINUTES, HOURS:MINUTES:SECONDS, DAYS-HOURS")
        if not re.fullmatch(r"\d+[KMGT]?", self.memory):
            raise ConfigurationError("--mem", self.memory, "is no amount like 32G")
        for option in self.options:
            if not re.match(r"--?[a-zA-Z]", option):
                raise ConfigurationError("--option", option, "is no option of sbatch; write --option=--qos=NAME")

    def as_options(self) -> list[str]:
        """Return the options of sbatch."""
        named = {"--partition": self.partition, "--account": self.account}
        return [
            "--nodes=1",
            "--ntasks=1",
            f"--cpus-per-task={self.processors}",
            *([f"--gpus-per-node={self.devices}"] if self.devices else []),
            f"--mem={self.memory}",
            f"--time={self.time}",
            *(f"{key}={value}" for key, value in named.items() if value is not None),
            *self.options,
        ]


def script(jobs: Sequence["Job"], folder: Path, typed: Sequence[str], resources: Resources) -> str:
    """Return a job-array script whose element N is the N-th job of a planned sweep.

    Args:
        jobs: at least one.
        folder: of the sweep.
        typed: the arguments that asked for it.
        resources: of each element.

    Raises:
        InputError: a value holds a line break, which a script of SLURM cannot.
    """
    plain = str(folder).replace("%", "%%")  # to SLURM, %A and the like in a path are placeholders
    options = [
        f"--job-name={folder.name}",
        f"--array=0-{len(jobs) - 1}%{min(resources.parallel, len(jobs))}",
        f"--output={plain}/{LOGS}/%A_%a.log",
        "--open-mode=append",
        "--requeue",
        f"--signal=USR2@{resources.warning}",
        *resources.as_options(),
    ]
    python = shlex.quote(sys.executable)
    lines = [
        "#!/bin/bash",
        f"# {len(jobs)} jobs, one an element, of: {shlex.join(['python', '-m', 'mwanda.sbatch', *typed])}",
        f"# What became of them: python -m mwanda.status {shlex.quote(str(folder))}",
        *(f"#SBATCH {shlex.quote(option)}" for option in options),
        "",
        "set -eu",
        "case $SLURM_ARRAY_TASK_ID in",
        *(f"    {number}) job={shlex.quote(job.folder.name)} ;;" for number, job in enumerate(jobs)),
        "    *) exit 2 ;;",
        "esac",
        f"folder={shlex.quote(str(folder))}/$job",
        f"log={shlex.quote(plain)}/$job/{LOG}",
        'mkdir -p "$folder"',
        *resources.setup,
        "",
        "code=0",
        f'srun --cpus-per-task={resources.processors} --output="$log" --open-mode=append '
        f'{python} -m mwanda.sweep "$folder" || code=$?',
        "",
        f"# {TRY_AGAIN}: it was told that its time is nearly over ({128 + SIGUSR2}: before it could listen). It goes on"
        " where it was.",
        f"if ((code == {TRY_AGAIN} || code == {128 + SIGUSR2})) && "
        f"((${{SLURM_RESTART_COUNT:-0}} < {resources.requeues})); then",
        # One element has the number of the whole array, by which all would be queued again.
        f'    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID" && sleep {PATIENCE} # until it is ended',
        "fi",
        f"# {128 + SIGTERM}: it was told to end. After a preemption SLURM queues it again, unless it ends before.",
        f"if ((code == {128 + SIGTERM})); then sleep {PATIENCE}; fi",
        'exit "$code"',
    ]
    if any(set(line) & {"\n", "\r"} for line in lines):
        raise InputError("a value holds a line break, which a script of SLURM cannot")
    return "\n".join(lines) + "\n"


def submit(path: Path) -> str:
    """Hand a script to the cluster and return the number of the array.

    Raises:
        MwandaError: the cluster refuses it.
    """
    done = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.replace("sbatch: error:", "").split())
        raise MwandaError(f"sbatch refuses {path}: {said}")
    return done.stdout.strip().split(";")[0]
