"""Masks as packed bits."""

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor


def pack(kept: Bool[Tensor, "out in"]) -> UInt8[Tensor, "out bytes"]:
    """Return eight weights a byte, first weight in the highest bit, rows padded with zeros."""
    return torch.from_numpy(np.packbits(kept.cpu().numpy(), axis=1)).contiguous()  # GPT-2's weights are transposed


def unpack(packed: UInt8[Tensor, "out bytes"], columns: int) -> Bool[Tensor, "out in"]:
    """Undo `pack`."""
    return torch.from_numpy(np.unpackbits(packed.numpy(), axis=1, count=columns).astype(bool))
