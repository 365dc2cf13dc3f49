"""One job as Hydra calls it: through another launcher or sweeper than ours, or with another main configuration."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mwanda.config.compose import resolved
from mwanda.config.identity import RunSpec
from mwanda.errors import InputError, MwandaError
from mwanda.job.folder import remove_if_empty
from mwanda.sweep import worker
from mwanda.system.terminal import complain


if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(config: "DictConfig") -> None:
    """Run what Hydra composed.

    Raises:
        SystemExit: it did not end well; with a line that says why.
        Exception: likewise, as a job of a launcher, which has to see it.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    swept, folder = hydra.mode == RunMode.MULTIRUN, Path(hydra.runtime.output_dir)
    made = _made_by_this_process(folder)
    overrides = list(hydra.overrides.task)
    choices = {str(group): str(choice) for group, choice in hydra.runtime.choices.items()}
    try:
        spec = replace(RunSpec.of(resolved(config), choices, overrides), folder=folder)
    except MwandaError as error:
        if made:
            remove_if_empty(folder)
        complain(error)
        raise SystemExit(error.exit_code) from None
    if not swept or spec.settings.mode != "run":
        if spec.settings.mode != "run" and made:
            remove_if_empty(folder)
        code = worker.run_spec(spec)
        if code == InputError.exit_code and made:
            remove_if_empty(folder)
        if code:
            raise SystemExit(code)
        return
    if made:
        remove_if_empty(folder)
    job = worker.assigned(spec)
    if job.action != "run":
        print(f"{job.folder}: left alone, as the sweep was started with rerun={spec.settings.rerun}")
        return
    worker.run_assigned(job, spec.in_sweep(job.folder))


def _made_by_this_process(folder: Path) -> bool:
    """Return whether Hydra has just made a folder, and not the user before."""
    import psutil

    return folder.is_dir() and folder.stat().st_ctime >= psutil.Process().create_time() - CLOCKS


CLOCKS = 0.02
"""Seconds by which the clocks of files and of processes may differ."""
