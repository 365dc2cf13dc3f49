"""Masks as packed bits."""

import hashlib

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor


def pack(kept: Bool[Tensor, "out in"]) -> UInt8[Tensor, "out bytes"]:
    """Return eight weights a byte, first weight in the highest bit, rows padded with zeros; where `kept` is."""
    if kept.device.type == "cpu":
        return torch.from_numpy(np.packbits(kept.numpy(), axis=1)).contiguous()  # GPT-2's weights are transposed
    padded = torch.nn.functional.pad(kept, (0, -kept.shape[1] % 8)).view(kept.shape[0], -1, 8)
    return (padded << torch.arange(7, -1, -1, device=kept.device)).sum(dim=2).to(torch.uint8)


def unpack(packed: UInt8[Tensor, "out bytes"], columns: int) -> Bool[Tensor, "out in"]:
    """Undo `pack`."""
    return torch.from_numpy(np.unpackbits(packed.numpy(), axis=1, count=columns).astype(bool))


def digest(weight: Float[Tensor, "out in"], at_once: int = 1 << 22) -> str:
    """Return 16 characters that stand for shape and mask of a matrix, looking at no more than `at_once` weights."""
    rows, columns = weight.shape
    found = hashlib.sha256(f"{rows}x{columns}".encode())
    for part in weight.split(max(1, at_once // columns)):
        found.update(pack(part != 0).cpu().numpy().tobytes())
    return found.hexdigest()[:16]
