"""Masks as packed bits."""

import numpy as np
import torch
from jaxtyping import Bool, UInt8
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
