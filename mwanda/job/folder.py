"""The folder of a run: what is in it while it runs, and what it held before."""

import logging
import shutil
import sys
from pathlib import Path
from typing import Any

from mwanda.config.identity import RunSpec
from mwanda.errors import ConfigurationError, RecordError
from mwanda.evaluation.sentence_losses import FILE
from mwanda.job import status
from mwanda.job.components import Parts
from mwanda.job.reading import check_summary
from mwanda.job.record import Results
from mwanda.job.results import RESULTS, read_results
from mwanda.pruner import run_checkpoint
from mwanda.system.environment import DIFFERENCE
from mwanda.system.ownership import check_replaceable, remove_own, remove_unfinished
from mwanda.system.secrets import hidden


CHECKPOINT, WORK = "checkpoint", "weights"
"""Folders within that of the run, there while it runs: what is finished, and pruned blocks that are not in memory."""

LOG = "job.log"
"""What a job of a sweep prints; it is there before the run is."""

SCRATCH = (r"(activations|unpacked)-\w+",)
"""Names of the folders in `weights/` that no later attempt can use."""

BLOCKS = (*SCRATCH, r"block-\d{5}\.safetensors")
"""Names of all that this project puts into `weights/`."""

FILES = ("config.yaml", "overrides.yaml", "run.log", RESULTS, status.FILE, DIFFERENCE, FILE)
"""Names of the files that a run writes, whatever is asked of it."""

FOLDERS = ("inside", "wandb")
"""Names of the folders that it fills, when there was nothing in its own before."""


logger = logging.getLogger(__name__)


def finished_results(spec: RunSpec, parts: Parts) -> Results | None:
    """Return the results that the folder of a run holds already, if the user asks to go on there.

    Raises:
        ConfigurationError: the folder belongs to another run.
    """
    folder, resume = spec.folder, spec.settings.resume
    found = _read(folder)
    if parts.export is not None:
        check_replaceable(folder / parts.export.name)
    if found is None or found["status"] != "complete":
        if (folder / CHECKPOINT / run_checkpoint.STATE).is_file() and not resume:
            raise ConfigurationError(
                "output_dir", folder, "holds an interrupted run; add resume=true, or choose another folder"
            )
        return None
    if not resume:
        raise ConfigurationError("output_dir", folder, "holds a finished run; choose another folder or add resume=true")
    if found["config_hash"] != spec.config_hash:
        raise ConfigurationError("output_dir", folder, "holds the results of another configuration")
    if parts.export is not None and not (folder / parts.export.name).exists():
        logger.info("%s is finished but lacks %s, and is run again", folder, parts.export.name)
        return None
    logger.info("%s is finished already", folder)
    remove_progress(folder)  # of a process that was killed between its results and its cleaning up
    return found


def _read(folder: Path) -> Results | None:
    """Return what results.json says; one that is damaged is that of no finished run, and is written again."""
    try:
        found = read_results(folder)
        if found is not None and found["status"] == "complete":
            check_summary(found, folder / RESULTS)
            if "config_hash" not in found:
                raise RecordError(f"{folder / RESULTS}: config_hash is missing")
    except RecordError as error:
        logger.warning("%s; it is damaged, and is made again", error)
        return None
    return found


class _Patient(logging.FileHandler):
    """A log without secrets, whose disk may be full for a while: what else the run does tells the user of that."""

    def format(self, record: logging.LogRecord) -> str:
        """Return what is written of a record."""
        return hidden(super().format(record))

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing of a disk that is full."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def log_to(path: Path) -> logging.Handler:
    """Send all that this project logs to a file as well; return what does so."""
    handler = _Patient(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("mwanda")
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    return handler


def log_failure(handler: logging.Handler) -> None:
    """Write the traceback to run.log alone: whoever catches the error decides what the terminal shows."""
    values: dict[str, Any] = {"name": logger.name, "levelno": logging.ERROR, "levelname": "ERROR"}
    handler.handle(logging.makeLogRecord(values | {"msg": "the run failed", "exc_info": sys.exc_info()}))


def remove_scratch(folder: Path) -> None:
    """Remove what an attempt that was killed has left half made; pruned blocks are taken up again, and stay."""
    for place in (folder, folder / CHECKPOINT, folder / WORK, folder / "inside"):
        remove_unfinished(place)
    remove_own(folder / WORK, SCRATCH)


def remove_progress(folder: Path) -> None:
    """Remove what a run could go on from."""
    remove_own(folder / CHECKPOINT, run_checkpoint.OWN)
    remove_own(folder / WORK, BLOCKS)


def remove_everything_of_ours(folder: Path) -> None:
    """Remove what a run has written into a folder that was empty before; what else has come into it stays."""
    remove_progress(folder)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    for name in FOLDERS:
        if not (folder / name).is_symlink():
            shutil.rmtree(folder / name, ignore_errors=True)
    remove_unfinished(folder)


def remove_if_empty(folder: Path) -> None:
    """Remove the folders that Hydra made for a mode that leaves nothing."""
    for each in (folder, folder.parent):
        try:
            each.rmdir()
        except OSError:
            return
