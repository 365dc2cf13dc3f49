"""Runs one job in this process: the one door for single runs, jobs of a sweep, and what a cluster starts."""

import logging
import sys
import traceback
from pathlib import Path

from mwanda.config.compose import run_spec as composed_spec
from mwanda.config.identity import RunSpec
from mwanda.errors import ConfigurationError, InputError, MwandaError
from mwanda.job import status
from mwanda.job.claim import claim
from mwanda.job.run import run
from mwanda.sweep.naming import DIGITS, LONGEST_LABEL, command_line, safe, split
from mwanda.sweep.plan import FILE, Job, Plan, decide, read
from mwanda.system.environment import code
from mwanda.system.files import disk_problem
from mwanda.system.interruption import Interrupted
from mwanda.system.secrets import hidden, hidden_path
from mwanda.system.terminal import complain


logger = logging.getLogger(__name__)


def run_spec(spec: RunSpec, job: Job | None = None) -> int:
    """Run what was asked for, and say in one line why it ended otherwise; return the exit code.

    Args:
        spec: the run.
        job: of the sweep that it belongs to, whose folder says why there are no results.

    Returns:
        0 for complete, 2 for bad input, 1 for another failure, and that of mwanda.system.interruption after a signal.
    """
    try:
        run(spec)
    except Interrupted as interrupted:
        again = "started again," if spec.study else f"with resume=true output_dir={spec.folder}"
        print(f"interrupted by {interrupted}; {again} it goes on", file=sys.stderr)
        return interrupted.exit_code
    except Exception as error:
        return _failed(error, job)
    return 0


def _failed(error: Exception, job: Job | None) -> int:
    if job is not None:
        record_failure(job, error)
    if isinstance(error, MwandaError):
        complain(error)
        return error.exit_code
    problem = disk_problem(error)
    if problem is not None:
        complain(f"{problem}; when that is mended, resume=true with the same output_dir goes on")
        return 1
    print(hidden(traceback.format_exc()), end="", file=sys.stderr)
    return 1


def run_job(folder: Path) -> int:
    """Run one job of a plan; return the exit code of `run_spec`.

    Raises:
        InputError: no sweep has planned a job for the folder.
    """
    folder = folder.absolute()
    found = read(folder.parent)
    job = next((each for each in found.jobs if each.folder == folder), None) if found else None
    if found is None or job is None:
        start = command_line(["--multirun"])
        raise InputError(f"{folder}: no {FILE} beside it plans such a job; start the sweep by {start} …")
    _warn_of_changed_code(found)
    try:
        spec = composed_spec([*job.overrides, f"sweep.name={found.name}"]).in_sweep(folder)
    except Exception as error:
        return _failed(error, job)
    return run_spec(spec, job)


def run_assigned(job: Job, spec: RunSpec) -> None:
    """Run a job for a launcher, which has to see how it ended.

    Raises:
        SystemExit: a signal ended it.
        Exception: it failed.
    """
    try:
        run(spec)
    except Interrupted as interrupted:
        print(f"interrupted by {interrupted}; started again, it goes on", file=sys.stderr)
        raise SystemExit(interrupted.exit_code) from None
    except Exception as error:
        record_failure(job, error)
        if isinstance(error, MwandaError):
            complain(error)
        raise


def assigned(spec: RunSpec) -> Job:
    """Return the job that its sweep has planned for a run, or else one that suits it.

    Not every job is planned: other sweepers of Hydra choose their jobs one after the other.
    """
    settings = spec.settings
    folder = Path(hidden_path(settings.sweep.folder)).expanduser().absolute() / str(settings.sweep.name)
    found = read(folder)
    if found is not None:
        _warn_of_changed_code(found)
    for job in found.jobs if found else ():
        if job.config_hash == spec.config_hash:
            return job
    typed = [hidden(each) for each in spec.overrides if not each.startswith("hydra")]
    label = "-".join("_".join(map(safe, split(each))) for each in typed)
    place = folder / f"{label[:LONGEST_LABEL]}-{spec.config_hash[:DIGITS]}"
    return Job(place, spec.overrides, spec.config_hash, decide(place, spec.config_hash, settings.rerun))


def record_failure(job: Job, error: BaseException) -> None:
    """Write a status where the failure came before the run could write its own; nothing in a folder not its own."""
    try:
        with claim(job.folder, stays=True):
            found = status.seen(job.folder)
            if found is None or not (found[0] == "running" or status.is_this_process(found[1])):
                status.Reporter(job.folder, job.config_hash, job.overrides, job.folder.name).end("failed", error)
    except (ConfigurationError, OSError) as problem:
        logger.warning("%s: no status is written: %s", job.folder, problem)


def _warn_of_changed_code(plan: Plan) -> None:
    now = code()
    if plan.code and now != plan.code:
        before, after = (
            f"{each['commit'] or 'no checkout'}{' and changes' if each['dirty'] else ''}" for each in (plan.code, now)
        )
        logger.warning("the code has changed since the sweep was started: %s, now %s", before, after)
