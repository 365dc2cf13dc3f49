"""The record of a run: results.json and what it says of the environment."""

import csv
import hashlib
import io
import json
import math
import os
import platform
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import mwanda


if TYPE_CHECKING:
    from torch import Tensor


SCHEMA = "mwanda.results/1"
RESULTS = "results.json"
DIFFERENCE = "git.diff"
LONGEST_DIFFERENCE = 1 << 20
"""Bytes of it that are written."""


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON that is there whole or not at all; NaN and infinity become null."""
    write_text(path, json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_yaml(path: Path, content: Any) -> None:
    """Write YAML that is there whole or not at all."""
    write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return rows as CSV with a heading; what is unknown or no number (NaN) is left empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    return text.getvalue()


def write_tensors(path: Path, tensors: Mapping[str, "Tensor"], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file that is there whole or not at all; no two tensors may share memory."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file({name: value.contiguous() for name, value in tensors.items()}, temporary, metadata or None)
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write a Parquet file that is there whole or not at all."""
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        parquet.write_table(pyarrow.table(dict(columns)), temporary, compression="zstd")
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_results(folder: Path) -> dict[str, Any] | None:
    """Return the results that a folder holds, if any."""
    path = folder / RESULTS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def environment(device: str) -> dict[str, Any]:
    """Return what the numbers may depend on besides the configuration."""
    written = code()
    return {
        "mwanda": mwanda.__version__,
        "python": platform.python_version(),
        "torch": _version("torch"),
        "transformers": _version("transformers"),
        "lm_eval": _version("lm_eval"),
        "git_commit": written["commit"],
        "git_dirty": written["dirty"],
        "git_difference": written["difference"],
        "device": device,
        "arithmetic": arithmetic(),
        "packages": packages(),
        "hostname_hash": hashlib.sha256(socket.gethostname().encode()).hexdigest()[:12],
    }


def packages() -> dict[str, str]:
    """Return the version of every installed package."""
    found = {str(each.name).lower().replace("_", "-"): str(each.version) for each in distributions() if each.name}
    return dict(sorted(found.items()))


def arithmetic() -> str:
    """Return what of this machine sums depend on to the last bit."""
    import torch

    return f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def write_difference(folder: Path) -> None:
    """Write to `git.diff` how this project's tracked files differ from the commit; nothing where they do not.

    No more than `LONGEST_DIFFERENCE` bytes of it; files that git does not track may be private, and are left out.
    """
    difference = _difference().encode()
    if len(difference) > LONGEST_DIFFERENCE:
        cut = f"\n… cut: {len(difference)} bytes in all\n".encode()
        difference = difference[:LONGEST_DIFFERENCE] + cut
    if difference:
        write_text(folder / DIFFERENCE, difference.decode(errors="ignore"))
    else:  # of an earlier attempt
        (folder / DIFFERENCE).unlink(missing_ok=True)


def code() -> dict[str, Any]:
    """Return the commit of this project, whether files differ from it, and a digest of how; None without git."""
    status = _git("status", "--porcelain")
    difference = _difference() if status else None
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
        "difference": hashlib.sha256(difference.encode()).hexdigest()[:12] if difference else None,
    }


def _difference() -> str:
    found = _git("diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv")
    return f"{found}\n" if found else ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Return git's answer about the folder of this project, or None where it is no checkout."""
    folder = Path(__file__).resolve().parent
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True, timeout=10)
        return done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


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
