"""The interface of an experiment tracker."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class RunIdentity:
    """The name, group and tags of a run on a dashboard.

    Args:
        run_id: the same whenever the same job is resumed.
        name: what people read.
        group: the sweep or study the job belongs to, if any.
        job_type: what kind of job it is, e.g. `run`.
        tags: what to filter by, e.g. the criterion and the schedule.
        folder: where the job writes; a tracker writes nowhere else.
    """

    run_id: str
    name: str
    group: str | None
    job_type: str
    tags: tuple[str, ...]
    folder: Path


class Tracker(Protocol):
    """Shows a job elsewhere. No method raises, and none but `finish` may take noticeable time."""

    def start(self, run: RunIdentity, config: Mapping[str, Any]) -> None:
        """Open the run with its complete, resolved configuration."""
        ...

    def log_stage(self, stage: str, seconds: float) -> None:
        """Say that a stage has ended and how long it took."""
        ...

    def log_results(self, results: Mapping[str, Any]) -> None:
        """Show the contents of results.json, of which any part may be missing."""
        ...

    def finish(self, failed: bool = False) -> None:
        """Close the run; called once, also after an error."""
        ...
