"""Whole jobs on tiny models: their configurations, and how to run them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mwanda.config.compose import composed
from mwanda.config.identity import RunSpec
from mwanda.job.run import run as run_spec


LANGUAGES = ("eng_Latn", "swh_Latn")


def overrides(model: Path, *more: str) -> list[str]:
    """Return what a user would type to prune the model in a folder, on the least text that means anything."""
    return [
        "model=bloom",
        f"model.path={model}",
        "langs=inline",
        f"langs.codes=[{','.join(LANGUAGES)}]",
        "calibration.sequences=4",
        "calibration.length=16",
        "evaluation.sentences=2",
        "evaluation.window=64",
        "evaluation.stride=64",
        "tracking=none",
        "artifacts=false",
        *more,
    ]


def without_evaluation(model: Path, *more: str) -> list[str]:
    """Return the same without evaluation."""
    kept = [each for each in overrides(model) if not each.startswith("evaluation.")]
    return [*kept, "evaluation=none", *more]


def configuration(model: Path, *more: str) -> dict[str, Any]:
    """Return the resolved configuration of a job."""
    return composed(overrides(model, *more))[0]


def spec(folder: Path, typed: Sequence[str], **changes: Any) -> RunSpec:
    """Return the run that was typed, in a folder; `changes` are of its configuration."""
    config, choices = composed(typed)
    return RunSpec.of(config | {"output_dir": str(folder)} | changes, choices, typed)


def run(model: Path, folder: Path, *more: str) -> dict[str, Any]:
    """Run a job in `folder` and return its results."""
    results = run_spec(spec(folder, overrides(model, *more)))
    assert results is not None
    return results
