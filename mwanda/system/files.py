"""Atomic writing of files and folders: they appear whole or not at all."""

import csv
import errno
import io
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mwanda.system.ownership import ABANDONED, UNFINISHED, check_replaceable, remove_unfinished, sign
from mwanda.system.secrets import hidden, hidden_within


if TYPE_CHECKING:
    from torch import Tensor


DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR, errno.EISDIR)
"""Errors that are of the disk, or of the rights to it, and not of this project."""

_tidied: set[Path] = set()


@contextmanager
def atomic(path: Path, name: Callable[[Path], str] | None = None) -> Iterator[Path]:
    """Give a place beside `path` to make a file or folder at; it is renamed when all went well, and else removed.

    A folder gets a list of what is in it, and only one that has such a list and nothing else is ever replaced.

    Args:
        path: what it will be called; what is there by that name is replaced.
        name: says what to call it instead, from what was made.

    Raises:
        ForeignError: there is a folder of that name which this project has not made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _tidy(path.parent)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED) as folder:
        made = Path(folder) / path.name
        yield made
        _readable(made)
        if made.is_dir():
            sign(made)
        target = path if name is None else path.with_name(name(made))
        if target.is_dir() and not target.is_symlink():
            check_replaceable(target)
            os.replace(target, Path(folder) / "before")  # removed with the temporary folder
        os.replace(made, target)


def _tidy(folder: Path) -> None:
    """Remove, once in a process, what others have left half made long ago."""
    if folder not in _tidied:
        _tidied.add(folder)
        remove_unfinished(folder, ABANDONED)


def _readable(made: Path) -> None:
    """Give what was made the rights of any file: some libraries write files that only their owner can read."""
    for each in (made, *(made.rglob("*") if made.is_dir() else ())):
        if not each.is_symlink():
            each.chmod(0o755 if each.is_dir() else 0o644)


def disk_problem(error: BaseException) -> str | None:
    """Return in a line what disk or rights did not allow, or None where an error is another one.

    Libraries that are not written in Python have errors of their own, which hold the system's number as a text.
    """
    if isinstance(error, OSError) and error.errno in DISK:
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    found = re.search(r"\(os error (\d+)\)", str(error))
    if found and type(error).__name__ == "SafetensorError" and int(found[1]) in DISK:
        return os.strerror(int(found[1]))
    return None


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, no UTF-8, or nested more deeply than anything that is written here.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON; NaN and infinity become null."""
    write_text(path, json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_yaml(path: Path, content: Any) -> None:
    """Write YAML."""
    write_text(path, yaml.safe_dump(hidden_within(content), sort_keys=False, allow_unicode=True))


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, without the secrets of this process's environment."""
    with atomic(path) as temporary:
        temporary.write_text(hidden(text), encoding="utf-8")


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return rows as CSV with a heading; what is unknown or no number (NaN) is left empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    return text.getvalue()


def write_tensors(path: Path, tensors: Mapping[str, "Tensor"], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file; no two tensors may share memory."""
    from safetensors.torch import save_file

    with atomic(path) as temporary:
        save_file({name: value.contiguous() for name, value in tensors.items()}, temporary, metadata or None)


def write_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write a Parquet file."""
    import pyarrow
    from pyarrow import parquet

    with atomic(path) as temporary:
        parquet.write_table(pyarrow.table(dict(columns)), temporary, compression="zstd")


def finite(value: Any) -> Any:
    """Return nested content as JSON can hold it: NaN and infinity are None."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.7g}"
    return "" if value is None else value
