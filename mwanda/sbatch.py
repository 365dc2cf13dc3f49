"""Runs a sweep as one SLURM job array that depends on no terminal: `python -m mwanda.sbatch OVERRIDES…`.

The overrides are those of `python run.py --multirun`, `+experiment=` included. Every element of the array is a plain
`python run.py … resume=true` in a folder of its own, so that what SLURM does to it loses no finished block.
"""

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mwanda import slurm
from mwanda.errors import ConfigurationError, InputError, MwandaError
from mwanda.interruption import TRY_AGAIN


SCRIPT = "array.sh"
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


def script(jobs: Sequence[Sequence[str]], folder: Path, name: str, resources: Resources, program: Sequence[str]) -> str:
    """Return a job-array script whose element N runs `program` with the N-th overrides.

    Args:
        jobs: the overrides of each, its folder among them.
        folder: of the sweep, where logs go.
        name: of the array.
        resources: of each element.
        program: that takes the overrides.

    Raises:
        InputError: something of it holds a line break, which a script of SLURM cannot.
    """
    logs = str(folder / "slurm" / "%A_%a.log")
    options = [
        f"--job-name={name}",
        f"--array=0-{len(jobs) - 1}%{min(resources.parallel, len(jobs))}",
        f"--output={_literal(str(folder / 'slurm'))}/%A_%a.log",
        "--open-mode=append",
        "--requeue",
        f"--signal=USR2@{resources.warning}",
        *resources.as_options(),
    ]
    lines = [
        "#!/bin/bash",
        f"# {len(jobs)} jobs, one an element; logs in {logs}; python -m mwanda.status {shlex.quote(str(folder))}",
        *(f"#SBATCH {shlex.quote(option)}" for option in options),
        "",
        "set -eu",
        "case $SLURM_ARRAY_TASK_ID in",
        *(f"    {number}) overrides=({shlex.join(overrides)}) ;;" for number, overrides in enumerate(jobs)),
        "    *) exit 2 ;;",
        "esac",
        *resources.setup,
        "",
        "code=0",
        f'srun --cpus-per-task={resources.processors} {shlex.join(program)} "${{overrides[@]}}" resume=true || code=$?',
        "",
        f"# {TRY_AGAIN}: the job was told that its time is over (140: before it could listen). It goes on where it was.",
        f"if ((code == {TRY_AGAIN} || code == 140)) && ((${{SLURM_RESTART_COUNT:-0}} < {resources.requeues})); then",
        f'    scontrol requeue "$SLURM_JOB_ID" && sleep {PATIENCE} # until SLURM ends it',
        "fi",
        "# 143: it was told to end. When it is being preempted SLURM itself queues it again, unless it ends before that.",
        "if ((code == 143)); then",
        f"    sleep {PATIENCE}",
        "fi",
        'exit "$code"',
    ]
    broken = next((line for line in lines if "\n" in line or "\r" in line), None)
    if broken is not None:
        raise InputError(f"{broken.split()[0]}: a job array takes no line breaks in values")
    return "\n".join(lines) + "\n"


def submit(path: Path) -> str:
    """Hand a script to the cluster and return the number of the array.

    Raises:
        MwandaError: the cluster refuses it.
    """
    try:
        done = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise InputError("there is no sbatch here; --dry-run writes the script alone") from None
    if done.returncode:
        said = " ".join(done.stderr.replace("sbatch: error:", "").split())
        raise MwandaError(f"sbatch refuses {path}: {said}")
    return done.stdout.strip().split(";")[0]


def _literal(path: str) -> str:
    """Return a path in which SLURM takes nothing for a placeholder."""
    return path.replace("%", "%%")
