"""Runs a sweep as one SLURM job array that depends on no terminal: `python -m mwanda.sbatch OVERRIDES…`.

The overrides are those of `python run.py --multirun`, `+experiment=` included, and are checked in the same way before
anything is submitted. Every element of the array is one job of the plan (`python -m mwanda.sweep JOB_FOLDER`), which
resumes what it finds in its folder, so that no finished block is lost to anything that SLURM does.
"""

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from mwanda.command_line import check, with_inline_languages
from mwanda.errors import ConfigurationError, InputError, MwandaError
from mwanda.sweep import naming, plan, slurm
from mwanda.sweep.array import LOGS, SCRIPT, Resources, script, submit
from mwanda.sweep.plan import Plan
from mwanda.system.files import write_text
from mwanda.system.secrets import IN_SHELL, hidden, hide_in_terminal
from mwanda.system.terminal import complain


def planned_sweep(overrides: Sequence[str], typed: Sequence[str]) -> Plan:
    """Check every job that the overrides ask for as run.py does, and plan the sweep; nothing is written.

    Args:
        overrides: those of `python run.py --multirun`.
        typed: everything that was typed, to be typed again.

    Raises:
        InputError: a job cannot be run as asked, or the array would be too large.
    """
    again = ["-m", "mwanda.sbatch", *typed]
    asked = check(["--multirun", *with_inline_languages(overrides)], elsewhere=True, typed=again)
    if asked is None or asked.sweep is None:
        alone = naming.command_line(["mode=prepare"])
        raise InputError(f"an array runs jobs; {alone} … prepares them, where there is a network")
    if not asked.local:
        raise ConfigurationError("hydra/launcher", "…", "the array is the launcher; leave it out")
    return asked.sweep


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the script, hand it to the cluster and return at once: 0, or 2 when something was refused before that."""
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
        planned = planned_sweep([*options.overrides, *_folder(options.output)], typed)
        jobs = [job for job in planned.current if job.action == "run"]
        if not jobs:
            print(f"{planned.folder}: {len(planned.current)} jobs, none of which is to be run")
            return 0
        slurm.check_array(len(jobs))
        text = hidden(script(jobs, planned.folder, typed, resources), IN_SHELL)
        path = planned.folder / SCRIPT
        if not options.dry_run and shutil.which("sbatch") is None:
            raise InputError("there is no sbatch here; --dry-run writes the script alone")
        if any(each == "rerun=all" for each in options.overrides):
            plan.clear(planned)
        planned.save()
        (planned.folder / LOGS).mkdir(exist_ok=True)
        write_text(path, text)
        number = None if options.dry_run else submit(path)
    except MwandaError as error:
        complain(error)
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
    hide_in_terminal()
    sys.exit(main())
