"""No tracking."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mwanda.tracking.base import RunIdentity


@dataclass(frozen=True)
class NoTracking:
    """Shows nothing anywhere."""

    def start(self, run: RunIdentity, config: Mapping[str, Any]) -> None:
        """Do nothing."""

    def log_stage(self, stage: str, seconds: float) -> None:
        """Do nothing."""

    def log_results(self, results: Mapping[str, Any]) -> None:
        """Do nothing."""

    def finish(self, failed: bool = False) -> None:
        """Do nothing."""
