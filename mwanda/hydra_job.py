"""One job as Hydra calls it: through another launcher or sweeper than ours, or with another main configuration."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mwanda.config.compose import resolved
from mwanda.config.identity import RunSpec
from mwanda.errors import MwandaError
from mwanda.job.folder import remove_if_empty
from mwanda.sweep import worker


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
    overrides = list(hydra.overrides.task)
    choices = {str(group): str(choice) for group, choice in hydra.runtime.choices.items()}
    try:
        spec = replace(RunSpec.of(resolved(config), choices, overrides), folder=folder)
    except MwandaError as error:
        remove_if_empty(folder)
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    if not swept or spec.settings.mode != "run":
        if spec.settings.mode != "run":
            remove_if_empty(folder)
        code = worker.run_spec(spec)
        if code:
            raise SystemExit(code)
        return
    remove_if_empty(folder)
    job = worker.assigned(spec)
    if job.action != "run":
        print(f"{job.folder}: left alone, as the sweep was started with rerun={spec.settings.rerun}")
        return
    worker.run_assigned(job, spec.in_sweep(job.folder))
