"""Whole jobs on tiny models: their configurations, and how to run them."""

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from mwanda import job
from mwanda.command_line import compose


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
    return deepcopy(_composed(tuple(overrides(model, *more))))


def run(model: Path, folder: Path, *more: str) -> dict[str, Any]:
    """Run a job in `folder` and return its results."""
    results = job.run(configuration(model, *more), folder, overrides(model, *more), {"criterion": "mwanda"})
    assert results is not None
    return results


@cache
def _composed(arguments: tuple[str, ...]) -> dict[str, Any]:
    return compose(arguments)
