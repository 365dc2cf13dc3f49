"""Masks as packed bits."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from mwanda.system.device import fetched


def pack(kept: Bool[Tensor, "out in"]) -> UInt8[Tensor, "out bytes"]:
    """Return eight weights a byte, first weight in the highest bit, rows padded with zeros; where `kept` is."""
    if kept.device.type == "cpu":
        return torch.from_numpy(np.packbits(kept.numpy(), axis=1)).contiguous()  # GPT-2's weights are transposed
    padded = torch.nn.functional.pad(kept, (0, -kept.shape[1] % 8)).view(torch.uint8).reshape(len(kept), -1, 8)
    places = torch.arange(7, -1, -1, dtype=torch.uint8, device=kept.device)
    return (padded << places).sum(dim=2, dtype=torch.uint8)


def unpack(packed: UInt8[Tensor, "out bytes"], columns: int) -> Bool[Tensor, "out in"]:
    """Undo `pack`."""
    return torch.from_numpy(np.unpackbits(packed.numpy(), axis=1, count=columns).astype(bool))


AT_ONCE = 1 << 22
"""Weights looked at together, so that little memory is taken besides the model's."""


def digests(weights: Sequence[Float[Tensor, "out in"]], at_once: int = AT_ONCE) -> list[str]:
    """Return 16 characters for each matrix that stand for its shape and mask, looking at `at_once` weights at a time.

    What is on an accelerator is packed there, fetched all together, and hashed by several threads.
    """
    if all(weight.device.type == "cpu" for weight in weights):
        return [_hash(weight, _packed(weight, at_once)) for weight in weights]
    packed = [torch.cat([part.flatten() for part in _packed(weight, at_once)]) for weight in weights]
    parts = fetched(torch.cat(packed)).split([each.numel() for each in packed])
    with ThreadPoolExecutor() as threads:
        return list(threads.map(lambda weight, part: _hash(weight, [part]), weights, parts))


def _packed(weight: Float[Tensor, "out in"], at_once: int) -> Iterator[UInt8[Tensor, "rows bytes"]]:
    """Yield the mask of a few rows at a time."""
    for part in weight.split(max(1, at_once // weight.shape[1])):
        yield pack(part != 0)


def _hash(weight: Float[Tensor, "out in"], packed: Iterable[UInt8[Tensor, "..."]]) -> str:
    rows, columns = weight.shape
    found = hashlib.sha256(f"{rows}x{columns}".encode())
    for part in packed:
        found.update(part.contiguous().numpy().data)
    return found.hexdigest()[:16]
