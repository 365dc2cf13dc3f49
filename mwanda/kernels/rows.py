"""Scores, selects and zeroes whole rows in one pass over a matrix, by Triton; for accelerators that it compiles for.

A program takes one row: its weights are read once, and zeros are written where they go. Scores, `|w| · column`, stay in
registers. Non-negative numbers of float32 are in the order of their bits as whole numbers, so that the threshold is
found bit by bit, by counting how many are below; among equals the leftmost go first. Its masks are those of
`lowest.lowest`, which is used wherever this cannot be.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


LONGEST = 1 << 15
"""Inputs of a row that fit the registers of one program."""


@triton.jit  # type: ignore[untyped-decorator]
def _zero_lowest(weight, columns, size, stride, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    places = tl.arange(0, BLOCK)
    inside = places < size
    row = weight + tl.program_id(0).to(tl.int64) * stride + places
    values = tl.load(row, mask=inside, other=0.0).to(tl.float32)
    scores = tl.abs(values) * tl.load(columns + places, mask=inside, other=0.0)
    keys = scores.to(tl.int32, bitcast=True)
    keys = tl.where(values == 0.0, -1, keys)  # zero already, and first to go
    keys = tl.where(inside, keys, 0x7FFFFFFF)
    threshold = tl.where(tl.sum((keys < 0).to(tl.int32), axis=0) < count, 0, -1)
    for step in tl.static_range(31):
        higher = tl.where(threshold < 0, -1, threshold | (1 << (30 - step)))
        below = tl.sum((keys < higher).to(tl.int32), axis=0)
        threshold = tl.where(below < count, higher, threshold)
    first = keys < threshold
    tied = (keys == threshold).to(tl.int32)
    needed = count - tl.sum(first.to(tl.int32), axis=0)
    gone = first | ((tied == 1) & (tl.cumsum(tied, axis=0) <= needed))
    tl.store(row, tl.zeros([BLOCK], dtype=tl.float32).to(weight.dtype.element_ty), mask=inside & gone)


def zero_lowest(weight: Tensor, columns: Tensor, count: int) -> None:
    """Zero the `count` weights of each row with the lowest `|w| · column`, in place.

    Args:
        weight: out × in, whose rows are each in one piece.
        columns: a number for each input, in float32.
        count: less than a row has.
    """
    rows, size = weight.shape
    block = triton.next_power_of_2(size)
    warps = min(16, max(1, block // 1024))
    _zero_lowest[(rows,)](weight, columns, size, weight.stride(0), count, BLOCK=block, num_warps=warps)


def takes(weight: Tensor) -> bool:
    """Return whether rows are in one piece, and short enough, and of a dtype that float32 holds."""
    narrow = weight.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return narrow and weight.stride(1) == 1 and weight.shape[1] <= LONGEST
