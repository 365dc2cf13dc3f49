"""Scores, selects and zeroes whole rows in one pass over a matrix, by Triton; for accelerators that it compiles for.

A program takes one row: its weights are read once and written once. Scores, `|w| · column`, stay in registers, and a
threshold is sought by counting how many are below a guess: first by quick looks, and where these find none (equals at
the threshold, numbers out of the ordinary) by whole numbers. Its masks are those of `lowest.lowest`, which is used
wherever this cannot be.
"""

import os

import torch
import triton
import triton.language as tl
from torch import Tensor


LONGEST = 1 << 15
"""Inputs of a row that fit the registers of one program."""

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether kernels are interpreted on the CPU, where there are no instructions of a GPU."""


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
def _count_below(scores, guess, INSTRUCTION: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return how many scores are below a guess of at least 2⁻¹⁰³, in float32.

    In two instructions a score, where comparing, choosing and adding take three slower ones: with b two over the
    distance of the guess to the next number, `(guess − score) b` is 1 or more for what is below and else 0 or less, and
    the GPU clips to [0, 1] as it multiplies and adds.
    """
    if INSTRUCTION:
        exponent = guess.to(tl.int32, bitcast=True) >> 23
        scale = (tl.minimum(278 - exponent, 254) << 23).to(tl.float32, bitcast=True)
        marks = tl.inline_asm_elementwise(
            "fma.rn.sat.f32 $0, $1, $2, $3;",
            "=f,f,f,f",
            [scores, -scale, guess * scale],
            dtype=tl.float32,
            is_pure=True,
            pack=1,
        )
        return tl.sum(marks, axis=0)
    else:
        return tl.sum((scores < guess).to(tl.float32), axis=0)


@triton.jit  # type: ignore[untyped-decorator]
def _guessed(scores, total, size, count, INSTRUCTION: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return a threshold with `count` scores below it, by six or seven looks at 4096 normal weights, and if it is one.

    The first guess is a share of the mean; the next ones go outwards until the threshold lies between two of them, and
    then in proportion to what is below these; every eighth halves.
    """
    wanted = count.to(tl.float32)
    number = size.to(tl.float32)
    share = wanted / number
    guess = total / number * share * (1.4 + share * share)
    low = 0.0
    under_low = 0.0
    high = 0.0
    under_high = number
    found = 0
    looks = 0
    while (found == 0) & (looks < 20):
        looks += 1
        below = _count_below(scores, guess, INSTRUCTION)
        found = ((below == wanted) & (guess > 1e-30)).to(tl.int32)
        few = below < wanted
        low = tl.where(few, guess, low)
        under_low = tl.where(few, below, under_low)
        high = tl.where(few, high, guess)
        under_high = tl.where(few, under_high, below)
        inward = low + (high - low) * ((wanted - under_low - 0.5) / tl.maximum(under_high - under_low, 1.0))
        inward = tl.where(looks % 8 == 0, 0.5 * (low + high), inward)
        step = 2.5 * (wanted - below) / number + tl.where(few, 0.02, -0.02)
        outward = guess * tl.maximum(1.0 + step, 0.3)
        ahead = tl.where((low > 0.0) & (high > 0.0), inward, outward)
        guess = tl.where(found == 1, guess, ahead)
    return guess, found


@triton.jit(do_not_specialize=["count"])  # type: ignore[untyped-decorator]
def _zero_lowest(  # type: ignore[no-untyped-def]
    weight, columns, size, stride, count, BLOCK: tl.constexpr, WHOLE: tl.constexpr, INSTRUCTION: tl.constexpr
):
    places = tl.arange(0, BLOCK)
    row = weight + tl.program_id(0).to(tl.int64) * stride + places
    if WHOLE:
        values = tl.load(row).to(tl.float32)
        scores = tl.abs(values) * tl.load(columns + places)
        total = tl.sum(scores, axis=0)
    else:
        inside = places < size
        values = tl.load(row, mask=inside, other=0.0).to(tl.float32)
        scores = tl.abs(values) * tl.load(columns + places, mask=inside, other=0.0)
        total = tl.sum(scores, axis=0)
        scores = tl.where(inside, scores, float("inf"))
    guess, found = _guessed(scores, total, size, count, INSTRUCTION)
    # Whole rows are written, as pieces of a row are slower than all of it.
    if found == 1:
        kept = tl.where(scores < guess, 0.0, values).to(weight.dtype.element_ty)
    else:
        keys = tl.where(values == 0.0, -1, scores.to(tl.int32, bitcast=True))  # zero already, and first to go
        keys = tl.where(places < size, keys, 0x7FFFFFFF)
        low, high, under = _between(keys, count)
        gone = keys < tl.where(under == count, high, low)
        tied = ((keys == low) & (under != count)).to(tl.int32)
        needed = count - tl.sum(gone.to(tl.int32), axis=0)
        gone = gone | ((tied == 1) & (tl.cumsum(tied, axis=0) <= needed))
        kept = tl.where(gone, 0.0, values).to(weight.dtype.element_ty)
    if WHOLE:
        tl.store(row, kept)
    else:
        tl.store(row, kept, mask=places < size)


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
    settings = {"BLOCK": block, "WHOLE": block == size, "INSTRUCTION": not INTERPRETED, "num_warps": warps}
    _zero_lowest[(rows,)](weight, columns, size, weight.stride(0), count, **settings)


def takes(weight: Tensor) -> bool:
    """Return whether rows are in one piece, and short enough, and of a dtype that float32 holds."""
    narrow = weight.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return narrow and weight.stride(1) == 1 and weight.shape[1] <= LONGEST
