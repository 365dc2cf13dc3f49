"""Scores, selects and zeroes whole rows in one pass over a matrix, by Triton; for accelerators that it compiles for.

A program takes one row. Scores, `|w| · column`, stay in registers, and a threshold is sought by counting how many are
below a guess, until it is as many as wanted. Where no guess does (equals at the threshold, numbers out of the
ordinary), the row is read piece by piece for each bit of the threshold, as a whole number. Its masks are those of
`lowest.lowest`, which is used wherever this cannot be.
"""

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from mwanda.kernels.trial import starting_at


LONGEST = 1 << 15
"""Inputs of a row that fit the registers of one program."""

PIECE = 1024
"""Inputs of a row that are looked at together where no guess was right."""

IN_ORDER = 8
"""Marks that are added up one after the other; what adds more of them waits for itself."""

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether kernels are interpreted on the CPU, where there are no instructions of a GPU."""


@triton.jit  # type: ignore[untyped-decorator]
def _count_below(scores, guess, INSTRUCTION: tl.constexpr, IN_ORDER: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return how many scores are below a guess of at least 2⁻¹⁰³.

    In two instructions a score, where comparing, choosing and adding take three slower ones: with b two over the
    distance of the guess to the next number, `(guess − score) b` is 1 or more for what is below and else 0 or less, and
    the GPU clips to [0, 1] as it multiplies and adds. A thread's few marks are added up as they are, and the rest as
    whole numbers, for which a warp has an instruction.
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
    else:
        marks = (scores < guess).to(tl.float32)
    if scores.shape[0] > IN_ORDER:
        marks = tl.sum(tl.reshape(marks, (scores.shape[0] // IN_ORDER, IN_ORDER)), axis=1)
    return tl.sum(marks.to(tl.int32), axis=0)


@triton.jit  # type: ignore[untyped-decorator]
def _guessed(  # type: ignore[no-untyped-def]
    scores, total, size, count, INSTRUCTION: tl.constexpr, IN_ORDER: tl.constexpr
):
    """Return a threshold with `count` scores below it, by some six looks at 4096 normal weights, and if it is one.

    The first guess is a share of the mean, and scores are taken to be as dense there as those of normal weights; then
    as dense as between the last two guesses. Every sixth halves what is left, and so does one that would leave it.
    """
    wanted = count.to(tl.float32)
    share = wanted / size.to(tl.float32)
    guess = tl.where(total < 1e38, total / size.to(tl.float32), 0.0) * share * (1.4 + share * share)
    density = wanted * (1.16 - 0.65 * share) / tl.maximum(guess, 1e-30)
    low = 0.0
    high = 0.0
    before = 0.0
    under = 0.0
    found = 0
    looks = 0
    while (found == 0) & (looks < 20):
        looks += 1
        below = _count_below(scores, guess, INSTRUCTION, IN_ORDER).to(tl.float32)
        found = ((below == wanted) & (guess > 1e-30)).to(tl.int32)
        low = tl.where(below < wanted, guess, low)
        high = tl.where(below < wanted, high, guess)
        far = (tl.abs(below - under) >= 4.0) & (looks > 1)
        density = tl.where(far, (below - under) / tl.where(far, guess - before, 1.0), density)
        before = guess
        under = below
        ahead = guess + (wanted - below) / tl.maximum(density, 1e-30)
        ahead = tl.minimum(tl.maximum(ahead, 0.3 * guess), 2.0 * guess)
        lost = (ahead <= low) | (ahead >= high) | (looks % 6 == 0)
        ahead = tl.where((high > 0.0) & lost, 0.5 * (low + high), ahead)
        guess = tl.where(found == 1, guess, ahead)
    return guess, found


@triton.jit  # type: ignore[untyped-decorator]
def _keys(row, columns, size, begin, PIECE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return some weights of a row and whole numbers in the order of their scores, of which zeros are the lowest."""
    places = begin + tl.arange(0, PIECE)
    inside = places < size
    values = tl.load(row + places, mask=inside, other=0.0).to(tl.float32)
    scores = tl.abs(values) * tl.load(columns + places, mask=inside, other=0.0)
    # What cannot be compared comes last: its sign means nothing.
    keys = tl.where(values == 0.0, -1, tl.abs(scores).to(tl.int32, bitcast=True))
    return values, tl.where(inside, keys, 0x7FFFFFFF)


@triton.jit  # type: ignore[untyped-decorator]
def _keys_below(row, columns, size, limit, PIECE: tl.constexpr):  # type: ignore[no-untyped-def]
    below = tl.zeros((PIECE,), tl.int32)
    for begin in range(0, size, PIECE):
        _, keys = _keys(row, columns, size, begin, PIECE)
        below += (keys < limit).to(tl.int32)
    return tl.sum(below, axis=0)


@triton.jit  # type: ignore[untyped-decorator]
def _zero_by_bits(row, columns, size, count, PIECE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Zero the `count` lowest of a row, of equals the leftmost, given that positive floats are in the order of bits."""
    threshold = tl.where(_keys_below(row, columns, size, 0, PIECE) < count, 0, -1)
    for bit in range(31):
        higher = threshold + (1 << (30 - bit))
        few = (threshold >= 0) & (_keys_below(row, columns, size, higher, PIECE) < count)
        threshold = tl.where(few, higher, threshold)
    needed = count - _keys_below(row, columns, size, threshold, PIECE)
    for begin in range(0, size, PIECE):
        values, keys = _keys(row, columns, size, begin, PIECE)
        tied = (keys == threshold).to(tl.int32)
        gone = (keys < threshold) | ((tied == 1) & (tl.cumsum(tied, axis=0) <= needed))
        needed -= tl.sum(tied, axis=0)
        places = begin + tl.arange(0, PIECE)
        tl.store(row + places, tl.where(gone, 0.0, values).to(row.dtype.element_ty), mask=places < size)


@triton.jit(do_not_specialize=["count"])  # type: ignore[untyped-decorator]
def _zero_lowest(  # type: ignore[no-untyped-def]
    weight,
    columns,
    size,
    stride,
    count,
    BLOCK: tl.constexpr,
    WHOLE: tl.constexpr,
    INSTRUCTION: tl.constexpr,
    PIECE: tl.constexpr,
    IN_ORDER: tl.constexpr,
):
    row = weight + tl.program_id(0).to(tl.int64) * stride
    places = tl.arange(0, BLOCK)
    if WHOLE:
        scores = tl.abs(tl.load(row + places).to(tl.float32)) * tl.load(columns + places)
        total = tl.sum(scores, axis=0)
    else:
        values = tl.load(row + places, mask=places < size, other=0.0).to(tl.float32)
        scores = tl.abs(values) * tl.load(columns + places, mask=places < size, other=0.0)
        total = tl.sum(scores, axis=0)
        scores = tl.where(places < size, scores, float("inf"))
    guess, found = _guessed(scores, total, size, count, INSTRUCTION, IN_ORDER)
    if found == 1:
        # Weights are read again, from the cache, as registers are few. Whole rows are written: pieces are slower.
        if WHOLE:
            again = tl.load(row + places, eviction_policy="evict_first")
            tl.store(row + places, tl.where(scores < guess, 0.0, again).to(row.dtype.element_ty))
        else:
            again = tl.load(row + places, mask=places < size, other=0.0, eviction_policy="evict_first")
            kept = tl.where(scores < guess, 0.0, again).to(row.dtype.element_ty)
            tl.store(row + places, kept, mask=places < size)
    else:
        _zero_by_bits(row, columns, size, count, PIECE)


def zero_lowest(weight: Tensor, columns: Tensor, count: int) -> None:
    """Zero the `count` weights of each row with the lowest `|w| · column`, in place.

    Args:
        weight: out × in, whose rows are each in one piece.
        columns: a number for each input, in float32.
        count: less than a row has.
    """
    rows, size = weight.shape
    block = triton.next_power_of_2(size)
    settings = {"BLOCK": block, "WHOLE": block == size, "INSTRUCTION": not INTERPRETED}
    settings |= {"PIECE": min(block, PIECE), "IN_ORDER": IN_ORDER, "num_warps": min(16, max(1, block // 2048))}
    with starting_at(weight):
        _zero_lowest[(rows,)](weight, columns, size, weight.stride(0), count, **settings)


def takes(weight: Tensor) -> bool:
    """Return whether rows are in one piece, and short enough, and of a dtype that float32 holds."""
    narrow = weight.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return narrow and weight.stride(1) == 1 and weight.shape[1] <= LONGEST
