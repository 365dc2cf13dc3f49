"""Divides rows by the root of their mean square and multiplies them by a weight in one pass, by Triton.

A program takes some rows, which stay in registers between the sum of their squares and the product. Families round in
different places (see `normalisation`); which is meant is told when the kernel is started, so that one is compiled.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mwanda.kernels.trial import starting_at


ELEMENTS = 2048
"""Values that a program holds at once, unless one row is longer."""


@triton.jit(do_not_specialize=["early", "added"])  # type: ignore[untyped-decorator]
def _normalise(  # type: ignore[no-untyped-def]
    inputs,
    weight,
    out,
    rows,
    epsilon,
    early,
    added,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    LINES: tl.constexpr,
):
    lines = tl.program_id(0) * LINES + tl.arange(0, LINES)
    places = tl.arange(0, BLOCK)
    inside = (lines < rows)[:, None] & (places < SIZE)[None, :]
    at = lines.to(tl.int64)[:, None] * SIZE + places[None, :]
    values = tl.load(inputs + at, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(values * values, axis=1) / SIZE
    values = values * tl.rsqrt(mean + epsilon)[:, None]
    values = tl.where(early != 0, values.to(out.dtype.element_ty).to(tl.float32), values)
    factors = tl.load(weight + places, mask=places < SIZE, other=0.0).to(tl.float32) + added.to(tl.float32)
    tl.store(out + at, (values * factors[None, :]).to(out.dtype.element_ty), mask=inside)


def normalise(inputs: Tensor, weight: Tensor, epsilon: float, rounds_first: bool, adds_one: bool) -> Tensor:
    """Return `x / √(mean(x²) + ε) · weight` of each row (the last dimension), in the dtype and layout of the inputs.

    Args:
        inputs: of any shape and layout; what does not fill its memory row by row is copied first.
        weight: one number for each place of a row.
        epsilon: ε.
        rounds_first: to the dtype of the inputs before the weight is multiplied, and not after it alone.
        adds_one: to the weight.
    """
    out = torch.empty_like(inputs)
    # Rows that are permuted are still each in one piece, and fill the memory of both: their order means nothing here.
    if inputs.stride(-1) != 1 or out.stride() != inputs.stride():
        inputs = inputs.contiguous()
        out = torch.empty_like(inputs)
    size = len(weight)
    rows, block = inputs.numel() // size, triton.next_power_of_2(size)
    lines = max(1, ELEMENTS // block)
    if rows:
        with starting_at(inputs):
            _normalise[(triton.cdiv(rows, lines),)](
                inputs,
                weight.contiguous(),
                out,
                rows,
                epsilon,
                int(rounds_first),
                int(adds_one),
                SIZE=size,
                BLOCK=block,
                LINES=lines,
                num_warps=min(16, max(4, block // 1024)),
                enable_fp_fusion=False,
            )
    return out
