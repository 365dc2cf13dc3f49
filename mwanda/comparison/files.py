"""The files of a run beside its results: which of them are damaged."""

import csv
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mwanda.comparison.blocks import block_numbers
from mwanda.errors import RecordError
from mwanda.export.base import MASKS, SHAPES
from mwanda.inside.columns import COLUMNS, FOLDER


NAMES = ("language", "other", "matrix")
"""Columns of the tables that hold no numbers."""


def damaged_files(folder: Path, results: Mapping[str, Any]) -> dict[str, str]:
    """Return the files that a comparison takes from a run besides its results and cannot read, with the reasons."""
    checks: dict[str, Callable[[Path], None]] = {
        f"{FOLDER}/{table}.csv": partial(_check_table, columns) for table, columns in COLUMNS.items()
    }
    checks[MASKS] = partial(_check_masks, results["sparsity"])
    found = {}
    for name, check in checks.items():
        path = folder / name
        if path.exists() or path.is_symlink():
            try:
                if not path.is_file():
                    raise RecordError("is no file")
                check(path)
            except (OSError, ValueError, KeyError, RecordError, csv.Error) as error:
                found[name] = " ".join(str(error).split())[:160]
    return found


def _check_table(columns: tuple[str, ...], path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != columns:
            raise RecordError(f"has not the columns {', '.join(columns)}")
        for number, row in enumerate(reader, 2):
            if None in row or None in row.values():
                raise RecordError(f"line {number} has not as many cells as there are columns")
            for column in columns:
                if column not in NAMES:
                    float(row[column] or "nan")


def _check_masks(sparsity: Mapping[str, Any], path: Path) -> None:
    """Refuse masks that no export wrote, or that belong to another model than the results."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as stored:
            shapes = json.loads((stored.metadata() or {})[SHAPES])
            names = [each["name"] for each in sparsity["per_matrix"]]
            block_numbers(names, len(sparsity["per_layer"]))
            for name in stored.keys():  # noqa: SIM118
                rows, columns = map(int, shapes[name].split("x"))
                if name not in names or stored.get_slice(name).get_shape() != [rows, -(-columns // 8)]:
                    raise RecordError(f"{name} is no mask of this run")
    except SafetensorError as error:
        raise RecordError(str(error)) from None
    except (AttributeError, TypeError):
        raise RecordError("its metadata names no shapes") from None
