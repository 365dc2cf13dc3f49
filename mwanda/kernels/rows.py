"""Scores, selects and zeroes whole rows in one pass over a matrix, by Triton; for accelerators that it compiles for.

A program takes one row: its weights are read once and written once. Scores, `|w| · column`, stay in registers, and a
threshold is found between the lowest and the highest by counting how many are below. Its masks are those of
`lowest.lowest`, which is used wherever this cannot be.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


LONGEST = 1 << 15
"""Inputs of a row that fit the registers of one program."""


@triton.jit  # type: ignore[untyped-decorator]
def _between(keys, count):  # type: ignore[no-untyped-def]
    """Return numbers low < high with fewer than `count` keys below low, at least so many below high, and these.

    Either exactly `count` keys are below high, or high is the number after low and the keys that equal low are tied.
    Positive floats are in the order of their bits as whole numbers, and their logarithms nearly so: a guess in
    proportion to the keys that are below takes about ten looks at 4096 normal weights, where halves take seventeen and
    bits 31. A guess aims a little to the other side of the last one, so that both ends close in; every sixth halves.
    """
    zeros = tl.sum((keys < 0).to(tl.int32), axis=0)
    lowest = tl.min(tl.where(keys < 0, 0x7F800000, keys), axis=0)
    highest = tl.max(tl.where(keys > 0x7F800000, -1, keys), axis=0)  # above infinity is what cannot be compared
    low = tl.where(zeros < count, tl.minimum(lowest, highest), -1)
    high = tl.where(zeros < count, highest + 1, 0)
    under_low = tl.where(zeros < count, zeros, 0)
    under = tl.where(zeros < count, tl.sum((keys < high).to(tl.int32), axis=0), zeros)
    side = 1.0
    looks = 0
    while (high - low > 1) & (under != count):
        looks += 1
        held = tl.maximum(under - under_low, 1).to(tl.float32)
        aim = (count - under_low).to(tl.float32) - 0.5 + side * 0.25 * tl.sqrt(held)
        share = tl.minimum(tl.maximum(aim / held, 0.0), 1.0)
        guess = low + ((high - low).to(tl.float32) * share).to(tl.int32)
        guess = tl.where(looks % 6 == 0, low + (high - low) // 2, guess)
        guess = tl.minimum(tl.maximum(guess, low + 1), high - 1)
        below = tl.sum((keys < guess).to(tl.int32), axis=0)
        few = below < count
        side = tl.where(few, 1.0, -1.0)
        low = tl.where(few, guess, low)
        under_low = tl.where(few, below, under_low)
        high = tl.where(few, high, guess)
        under = tl.where(few, under, below)
    return low, high, under


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
    low, high, under = _between(keys, count)
    gone = keys < tl.where(under == count, high, low)
    if under != count:
        tied = (keys == low).to(tl.int32)
        needed = count - tl.sum(gone.to(tl.int32), axis=0)
        gone = gone | ((tied == 1) & (tl.cumsum(tied, axis=0) <= needed))
    # Whole rows are written, as pieces of a row are slower than all of it.
    tl.store(row, tl.where(gone, 0.0, values).to(weight.dtype.element_ty), mask=inside)


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
