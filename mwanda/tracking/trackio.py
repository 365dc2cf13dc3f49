"""Trackio, as a mirror of results.json that can neither fail nor delay the job."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Annotated, Any

from annotated_types import Gt

from mwanda.system.secrets import hidden
from mwanda.tracking.background import Background
from mwanda.tracking.base import RunIdentity
from mwanda.tracking.plain import plain
from mwanda.tracking.summary import LANGUAGE_COLUMNS, LAYER_COLUMNS, language_rows, layer_rows, single_values


logger = logging.getLogger(__name__)


@dataclass
class Trackio:
    """One run per job, with every call to Trackio on a background thread; what goes wrong there costs one warning.

    Trackio keeps runs in a folder of its own (TRACKIO_DIR, or its default in the user's home), where its dashboard
    looks for them.

    Args:
        project: the project of the run.
        finish_timeout: seconds that a job waits at its end at most, in all.
    """

    project: str = "mwanda"
    finish_timeout: Annotated[float, Gt(0)] = 4.0

    def __post_init__(self) -> None:
        self._background: Background | None = None
        self._run: Any = None
        self._step = 0

    def start(self, run: RunIdentity, config: Mapping[str, Any]) -> None:
        """Open the run with its complete configuration."""
        self._background = Background("tracking", _warn)
        self._background.submit(partial(self._open, run, plain(config)))

    def log_stage(self, stage: str, seconds: float) -> None:
        """Log `seconds/STAGE`."""
        if self._background:
            self._background.submit(partial(self._log, {f"seconds/{stage}": seconds}))

    def log_results(self, results: Mapping[str, Any]) -> None:
        """Log single values, and tables of languages and blocks."""
        if self._background:
            self._background.submit(partial(self._log_results, plain(results)))

    def finish(self, failed: bool = False) -> None:
        """Close the run, and wait for that `finish_timeout` seconds at most."""
        background, self._background = self._background, None
        if background is None:
            return
        until = monotonic() + self.finish_timeout
        if not background.close(partial(self._close, failed), lambda: until):
            logger.warning("Trackio did not finish within %g s (tracking.finish_timeout)", self.finish_timeout)

    def _open(self, run: RunIdentity, config: dict[str, Any]) -> None:
        import trackio

        for module in (trackio, trackio.run, trackio.utils):  # it prints, and has no setting against it
            vars(module)["print"] = _nothing
        self._run = trackio.init(
            project=self.project,
            name=hidden(f"{run.name} {run.run_id}"),
            group=run.group,
            config=config | {"tags": [hidden(tag) for tag in run.tags]},
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def _log_results(self, results: dict[str, Any]) -> None:
        import trackio

        tables = {
            "languages": (LANGUAGE_COLUMNS, language_rows(results)),
            "layers": (LAYER_COLUMNS, layer_rows(results)),
        }
        rows = {
            name: trackio.Table(columns=list(columns), data=data) for name, (columns, data) in tables.items() if data
        }
        self._log(single_values(results) | rows)

    def _log(self, row: dict[str, Any]) -> None:
        self._run.log(row, step=self._step)
        self._step += 1

    def _close(self, failed: bool) -> None:
        if self._run is not None:
            self._log({"failed": int(failed)})
            self._run.finish()


def _nothing(*_: object, **__: object) -> None:
    """Print nothing."""


def _warn(error: BaseException) -> None:
    first = next(iter(str(error).splitlines()), "")
    logger.warning(
        "Trackio is off for this job (%s: %s); results.json holds the same numbers, and tracking=none leaves it out",
        type(error).__name__,
        hidden(first)[:200],
    )
