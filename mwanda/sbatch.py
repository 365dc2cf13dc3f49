"""Runs a sweep as one SLURM job array that depends on no terminal: `python -m mwanda.sbatch OVERRIDES…`.

The overrides are those of `python run.py --multirun`, `+experiment=` included, and are checked in the same way before
anything is submitted. Every element of the array is one job of the plan (`python -m mwanda.sweep JOB_FOLDER`), which
resumes what it finds in its folder, so that no finished block is lost to anything that SLURM does.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM, SIGUSR2
from typing import TYPE_CHECKING

from mwanda import slurm
from mwanda.errors import ConfigurationError, InputError, MwandaError
from mwanda.interruption import TRY_AGAIN


if TYPE_CHECKING:
    from mwanda.sweep import Job, Plan


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


def plan(overrides: Sequence[str], typed: Sequence[str]) -> "Plan":
    """Check every job that the overrides ask for as run.py does, and plan the sweep; nothing is written.

    Args:
        overrides: those of `python run.py --multirun`.
        typed: everything that was typed, to be typed again.

    Raises:
        InputError: a job cannot be run as asked, or the array would be too large.
    """
    from mwanda import sweep
    from mwanda.command_line import check, with_inline_languages

    asked = check(["--multirun", *with_inline_languages(overrides)], elsewhere=True)
    if asked is None:
        raise InputError("an array runs jobs; python run.py mode=prepare … prepares them, where there is a network")
    if not asked.local:
        raise ConfigurationError("hydra/launcher", "…", "the array is the launcher; leave it out")
    return sweep.plan(["-m", "mwanda.sbatch", *typed], asked.jobs, asked.plan.name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the script, hand it to the cluster and return at once: 0, or 2 when something was refused before that."""
    from mwanda import sweep
    from mwanda.record import write_text

    typed = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_intermixed_args(typed)
    try:
        resources = Resources(
            time=options.time,
            memory=options.mem,
            processors=options.cpus,
            devices=options.gpus,
            parallel=options.parallel,
            warning=options.warning,
            requeues=options.requeues,
            partition=options.partition,
            account=options.account,
            options=tuple(options.option),
            setup=tuple(options.setup),
        )
        planned = plan([*options.overrides, *_folder(options.output)], typed)
        jobs = [job for job in planned.current if job.action == "run"]
        if not jobs:
            print(f"{planned.folder}: {len(planned.current)} jobs, none of which is to be run")
            return 0
        slurm.check_array(len(jobs))
        text, path = script(jobs, planned.folder, typed, resources), planned.folder / SCRIPT
        if not options.dry_run and shutil.which("sbatch") is None:
            raise InputError("there is no sbatch here; --dry-run writes the script alone")
        if any(each == "rerun=all" for each in options.overrides):
            sweep.clear(planned)
        planned.save()
        (planned.folder / LOGS).mkdir(exist_ok=True)
        write_text(path, text)
        number = None if options.dry_run else submit(path)
    except MwandaError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    skipped = len(planned.current) - len(jobs)
    print(f"{len(jobs)} jobs, {skipped} left out as done or running: {os.path.relpath(path)}")
    print(f"sbatch {os.path.relpath(path)}" if number is None else f"SLURM job {number}; scancel {number} ends it")
    print(f"python -m mwanda.status {shlex.quote(os.path.relpath(planned.folder))}")
    return 0


def _folder(output: Path | None) -> list[str]:
    if output is None:
        return []
    quoted = str(output.expanduser().absolute().parent).replace("\\", "\\\\").replace("'", "\\'")
    return [f"sweep.folder='{quoted}'", f"sweep.name={output.name}"]


def _parser() -> argparse.ArgumentParser:
    default = Resources()
    parser = argparse.ArgumentParser(
        prog="python -m mwanda.sbatch",
        description="Run a sweep as one SLURM job array. The overrides are those of python run.py --multirun.",
        epilog="Example: python -m mwanda.sbatch criterion=wanda,mwanda sparsity=0.3,0.5 --partition gpu --gpus 1",
        allow_abbrev=False,
    )
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as in sparsity=0.3,0.5 or +experiment=NAME")
    parser.add_argument("--dry-run", action="store_true", help="write the script, do not submit it")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder of the sweep; default: outputs/sweeps/…")
    parser.add_argument("--partition")
    parser.add_argument("--account")
    parser.add_argument("--time", default=default.time, help="until SLURM ends a job (default: %(default)s)")
    parser.add_argument("--mem", default=default.memory, help="memory of a job (default: %(default)s)")
    parser.add_argument("--cpus", type=int, default=default.processors, help="cores of a job (default: %(default)s)")
    parser.add_argument(
        "--gpus",
        type=int,
        default=default.devices,
        help="of a job (default: %(default)s); with several, model.device_map=auto spreads the model over them",
    )
    parser.add_argument("--parallel", type=int, default=default.parallel, help="jobs at a time (default: %(default)s)")
    parser.add_argument(
        "--warning", type=int, default=default.warning, help="seconds' notice of the end (default: %(default)s)"
    )
    parser.add_argument(
        "--requeues",
        type=int,
        default=default.requeues,
        help="how often a job may run out of time (default: %(default)s)",
    )
    parser.add_argument("--option", action="append", default=[], help="any other of sbatch: --option=--qos=NAME")
    parser.add_argument("--setup", action="append", default=[], help="shell command before a job: 'module load cuda'")
    return parser


if __name__ == "__main__":
    sys.exit(main())
