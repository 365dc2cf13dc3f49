"""Files and folders that are there whole or not at all."""

import csv
import io
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mwanda.system.secrets import hidden, hidden_within


if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def atomic(path: Path, name: Callable[[Path], str] | None = None) -> Iterator[Path]:
    """Give a place beside `path` to make a file or folder at; it is renamed when all went well, and else removed.

    Args:
        path: what it will be called; what is there by that name is replaced.
        name: says what to call it instead, from what was made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        made = Path(folder) / path.name
        yield made
        if made.is_file():
            made.chmod(0o644)
        target = path if name is None else path.with_name(name(made))
        if target.is_dir() and not target.is_symlink():
            os.replace(target, Path(folder) / "before")  # goes with the temporary folder
        os.replace(made, target)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON without secrets; NaN and infinity become null."""
    content = _finite(hidden_within(content))
    _write(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_yaml(path: Path, content: Any) -> None:
    """Write YAML without secrets."""
    _write(path, yaml.safe_dump(hidden_within(content), sort_keys=False, allow_unicode=True))


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, without secrets."""
    _write(path, hidden(text))


def _write(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.7g}"
    return "" if value is None else value
