"""Tensor files that a later process takes only if they hold, to the bit, what was written for its purpose."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mwanda.errors import DamagedFileError
from mwanda.system.content import sha256_of
from mwanda.system.files import write_tensors


SEAL = "seal"
"""The entry of a file's metadata with the digest of all else that it holds, and of what it was written for."""


def write_sealed(path: Path, tensors: Mapping[str, Tensor], purpose: str, metadata: Mapping[str, str] = {}) -> None:
    """Write a safetensors file that `read_sealed` takes for this purpose alone; no two tensors may share memory."""
    here = {name: value.detach().cpu() for name, value in tensors.items()}  # fetched once, for the digest and the file
    write_tensors(path, here, {**metadata, SEAL: _digest(here, purpose, metadata)})


def read_sealed(path: Path, purpose: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and metadata of a file that was written for `purpose`.

    Raises:
        DamagedFileError: it is not there, cannot be read, or holds anything else than was written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise DamagedFileError(path, " ".join(str(error).split())) from error
    if metadata.pop(SEAL, None) != _digest(tensors, purpose, metadata):
        raise DamagedFileError(path, "it does not hold what was written")
    return tensors, metadata


def check_file(path: Path, digest: str) -> None:
    """Check that a file has this SHA-256.

    Raises:
        DamagedFileError: it has another, or cannot be read.
    """
    try:
        found = sha256_of(path)
    except OSError as error:
        raise DamagedFileError(path, str(error)) from error
    if found != digest:
        raise DamagedFileError(path, "it does not hold what was written")


def digest_of(content: object) -> str:
    """Return a digest of what JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest(tensors: Mapping[str, Tensor], purpose: str, metadata: Mapping[str, str]) -> str:
    shapes = {name: (str(value.dtype), list(value.shape)) for name, value in tensors.items()}
    found = hashlib.sha256(digest_of([purpose, dict(metadata), shapes]).encode())
    for name in sorted(tensors):
        values = tensors[name].contiguous().reshape(-1).view(torch.uint8)
        found.update(values.numpy().data)
    return found.hexdigest()
