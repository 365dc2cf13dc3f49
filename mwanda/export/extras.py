"""What lies beside a model's weights, and what of them its class has no place for, kept in an export."""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from mwanda.models import LoadedModel
from mwanda.models.files import INDEX, WEIGHTS
from mwanda.system.files import write_json, write_tensors


NOT_COPIED = (
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".ot", ".gguf", ".npz"),
    *(".index.json", ".sha256", ".md"),
)
"""Endings of files of weights, and of what describes the dense model."""

EXTRA = "model-unused.safetensors"
"""The file of tensors that the model's class has no place for."""

NAMED = 3

logger = logging.getLogger(__name__)


def keep_extras(loaded: LoadedModel, target: Path) -> list[str]:
    """Add to an export what `save_pretrained` leaves out; return a line for each kind of thing that was, or was not.

    Args:
        loaded: the model, and where it came from.
        target: the folder of the export, complete otherwise.
    """
    told = []
    files = _copy_files(loaded.folder, target)
    if files:
        told.append(f"copied from the original: {', '.join(files)}")
    kept = {name: file for name, file in loaded.unused.items() if file is not None and file.endswith(".safetensors")}
    lost = [name for name in loaded.unused if name not in kept]
    if kept:
        _add_tensors(loaded.folder, target, kept)
        told.append(f"kept dense, as {type(loaded.model).__name__} has no place for them: {_named(list(kept))}")
    if lost:
        told.append(f"left out, as {type(loaded.model).__name__} has no place for them: {_named(lost)}")
    for line in told:
        logger.info("export: %s", line)
    return told


def _copy_files(folder: Path | None, target: Path) -> list[str]:
    """Copy the small files that are not there yet, such as those of a processor; return their names."""
    copied = []
    for file in sorted(folder.iterdir()) if folder is not None else ():
        foreign = file.name.startswith(".") or file.name.endswith(NOT_COPIED) or not file.is_file()
        if not foreign and not (target / file.name).exists():
            shutil.copyfile(file, target / file.name)
            copied.append(file.name)
    return copied


def _add_tensors(folder: Path | None, target: Path, kept: Mapping[str, str]) -> None:
    """Add tensors to a checkpoint, in a file of their own that its index names."""
    assert folder is not None
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(kept.values())):
        with safe_open(folder / file, framework="pt") as content:
            tensors |= {name: content.get_tensor(name) for name, place in kept.items() if place == file}
    index = _index(target)
    write_tensors(target / EXTRA, tensors, {"format": "pt"})
    index["weight_map"].update(dict.fromkeys(tensors, EXTRA))
    index["metadata"]["total_size"] += sum(value.nbytes for value in tensors.values())
    write_json(target / INDEX, index)


def _index(target: Path) -> dict[str, Any]:
    """Return the index of a checkpoint; a single file is given a name by which it is one of several."""
    if (target / INDEX).is_file():
        found: dict[str, Any] = json.loads((target / INDEX).read_text(encoding="utf-8"))
        return found
    first = "model-00001-of-00001.safetensors"
    (target / WEIGHTS).rename(target / first)
    with safe_open(target / first, framework="pt") as content:
        names = list(content.keys())
    return {
        "metadata": {"total_size": (target / first).stat().st_size},
        "weight_map": dict.fromkeys(names, first),
    }


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} tensors, {', '.join(names[:NAMED])}{more}"
