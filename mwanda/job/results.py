"""results.json as a file: its name, how it is read and written; mwanda.job.sections has what a run puts into it.

It is read without torch, which thousands of runs would wait for.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from mwanda.config.schema import ADDED
from mwanda.errors import InputError
from mwanda.job.reading import FAMILY, checked, read_json
from mwanda.job.record import Results
from mwanda.system.files import write_json


SCHEMA = f"{FAMILY}1"
RESULTS = "results.json"


def read_results(folder: Path) -> Results | None:
    """Return the results that a folder holds, complete or not; None where there is no results.json.

    Raises:
        RecordError: results.json cannot be read, or is damaged.
        InputError: it is of something else than a run.
    """
    path = folder / RESULTS
    if not path.is_file():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or not str(found.get("schema")).startswith(FAMILY):
        raise InputError(f"{path}: is no record of a run ({SCHEMA}); move it away, or choose another folder")
    return as_today(checked(found, path))


def as_today(record: dict[str, Any]) -> Results:
    """Return a record with the keys that older versions did not write, as they would stand in it."""
    if "criterion" in record:
        record.setdefault("solver", {"name": "threshold", "settings": dict(ADDED["solver"])})
    if "calibration" in record:
        record["calibration"].setdefault("weights", ADDED["calibration.weights"])
        record["calibration"].setdefault("unit_tokens", ADDED["calibration.unit_tokens"])
        record["calibration"].setdefault("moment_share", ADDED["calibration.moment_share"])
        record["calibration"].setdefault("overlap", {"drop": ADDED["corpus.drop_overlap"], "dropped": {}})
    return cast("Results", record)  # what was read is checked by mwanda.job.reading


def is_ours(folder: Path) -> bool:
    """Return whether a folder holds a results.json that a run has written."""
    with suppress(OSError, ValueError, InputError):
        return read_results(folder) is not None
    return False


def write_results(folder: Path, record: Mapping[str, Any]) -> None:
    """Write results.json, whole or not at all."""
    write_json(folder / RESULTS, record)
