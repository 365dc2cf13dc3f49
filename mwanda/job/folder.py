"""The folder of a run: what is in it while it runs, and what it held before."""

import logging
import shutil
import sys
from pathlib import Path
from typing import Any

from mwanda.config.identity import RunSpec
from mwanda.errors import ConfigurationError, RecordError
from mwanda.job import status
from mwanda.job.components import Parts
from mwanda.job.results import read_results
from mwanda.system.secrets import HidingFormatter


CHECKPOINT, WORK = "checkpoint", "weights"
"""Folders within that of the run, there while it runs: what is finished, and pruned blocks that are not in memory."""


logger = logging.getLogger(__name__)


def finished_results(spec: RunSpec, parts: Parts) -> dict[str, Any] | None:
    """Return the results that the folder of a run holds already, if the user asks to go on there.

    Raises:
        ConfigurationError: the folder belongs to another run.
    """
    folder, resume = spec.folder, spec.settings.resume
    try:
        found = read_results(folder)
    except RecordError as error:
        if not resume or status.read(folder) is None:
            raise ConfigurationError("output_dir", folder, f"{error}; move it away, or choose another folder") from None
        logger.warning("%s; the run is done again", error)
        found = None
    if found is None or found["status"] != "complete":
        if (folder / CHECKPOINT).is_dir() and not resume:
            raise ConfigurationError(
                "output_dir", folder, "holds an interrupted run; add resume=true, or choose another folder"
            )
        return None
    if not resume:
        raise ConfigurationError("output_dir", folder, "holds a finished run; choose another folder or add resume=true")
    if found.get("config_hash") != spec.config_hash:
        raise ConfigurationError("output_dir", folder, "holds the results of another configuration")
    if parts.export is not None and not (folder / parts.export.name).exists():
        logger.info("%s is finished but lacks %s, and is run again", folder, parts.export.name)
        return None
    logger.info("%s is finished already", folder)
    for left in (CHECKPOINT, WORK):  # by a process that was killed between its results and its cleaning up
        shutil.rmtree(folder / left, ignore_errors=True)
    return found


def log_to(path: Path) -> logging.Handler:
    """Send all that this project logs to a file as well; return what does so."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(HidingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("mwanda")
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    return handler


def log_failure(handler: logging.Handler) -> None:
    """Write the traceback to run.log alone: whoever catches the error decides what the terminal shows."""
    values: dict[str, Any] = {"name": logger.name, "levelno": logging.ERROR, "levelname": "ERROR"}
    handler.handle(logging.makeLogRecord(values | {"msg": "the run failed", "exc_info": sys.exc_info()}))


def remove_scratch(folder: Path) -> None:
    """Remove what an attempt that was killed has left of its own; pruned blocks are taken up again, and stay."""
    from mwanda.models.source import UNPACKED
    from mwanda.pruner.offloading import OFFLOADED

    for prefix in (UNPACKED, OFFLOADED):
        for left in folder.glob(f"{prefix}*"):
            shutil.rmtree(left, ignore_errors=True)


def remove_if_empty(folder: Path) -> None:
    """Remove the folders that Hydra made for a mode that leaves nothing."""
    for each in (folder, folder.parent):
        try:
            each.rmdir()
        except OSError:
            return
