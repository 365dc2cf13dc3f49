"""Adds up squares of products by row and level in one look, by Triton; for accelerators that it compiles for."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mwanda.kernels.trial import starting_at


BLOCK = 512
"""Weights of a row that a program holds at once."""


@triton.jit  # type: ignore[untyped-decorator]
def _add_up(  # type: ignore[no-untyped-def]
    gradient, weight, codes, out, rows, size, LEVELS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(1).to(tl.int64)
    own = tl.program_id(0) * rows + row  # all sequences of a row one after the other: its weights stay in the cache
    levels = tl.arange(0, PADDED)
    found = tl.zeros((PADDED, BLOCK), tl.float32)
    for begin in range(0, size, BLOCK):
        places = begin + tl.arange(0, BLOCK)
        inside = places < size
        values = tl.load(gradient + own * size + places, mask=inside, other=0.0).to(tl.float32)
        values *= tl.load(weight + row * size + places, mask=inside, other=0.0).to(tl.float32)
        first = tl.load(codes + row * size + places, mask=inside, other=255).to(tl.int32)
        found += tl.where(first[None, :] <= levels[:, None], (values * values)[None, :], 0.0)
    tl.store(out + own * LEVELS + levels, tl.sum(found, axis=1), mask=levels < LEVELS)


def squares_by_row(gradient: Tensor, weight: Tensor, codes: Tensor, levels: int) -> Tensor:
    """Return `Σ_j (g_bij w_ij)²` over the weights of each row that are removed at each level, B × O × K in float32.

    Args:
        gradient: B × O × I, in one piece.
        weight: O × I, in one piece.
        codes: O × I, the lowest level at which a weight is removed, in eight bits and in one piece.
        levels: K.
    """
    sequences, rows, size = gradient.shape
    out = torch.empty(sequences, rows, levels, device=gradient.device)
    padded = triton.next_power_of_2(levels)
    with starting_at(gradient):
        _add_up[(sequences, rows)](gradient, weight, codes, out, rows, size, LEVELS=levels, PADDED=padded, BLOCK=BLOCK)
    return out
