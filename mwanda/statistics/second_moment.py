"""The second moment `XᵀX` of many tokens, the most expensive of all statistics."""

import torch
from jaxtyping import Float
from torch import Tensor


BLOCK = 256
"""Features of which a block of products is made at a time on the CPU."""


def second_moment(rows: Float[Tensor, "N I"]) -> Float[Tensor, "I I"]:
    """Return `Σ_t x_t x_tᵀ`; on the CPU only one half is multiplied out, as the other is its mirror image."""
    features = rows.shape[1]
    # Products of blocks are those of the whole to the bit, but for narrow rests.
    if rows.device.type != "cpu" or features <= BLOCK or features % (BLOCK // 4):
        return rows.T @ rows
    columns, moment = rows.T.contiguous(), rows.new_empty(features, features)
    for first in range(0, features, BLOCK):
        last = min(first + BLOCK, features)
        part = torch.mm(columns[first:last], rows[:, first:])
        moment[first:last, first:] = part
        moment[last:, first:last] = part[:, BLOCK:].T
    return moment
