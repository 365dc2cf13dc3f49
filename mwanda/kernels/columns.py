"""SparseGPT's walk through a block of columns, row by row, by Triton: one launch in place of several for each column.

A program takes some rows: their weights of the block stay in registers while column after column is pruned, and what
that costs is taken from those to come. N:M cells are decided when their turn comes, by the rank of each score within
its cell, the leftmost of equals first. Products and differences are rounded one by one, as the plain way rounds them.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mwanda.kernels.trial import starting_at


WIDEST = 128
"""Columns of a block that fit the registers of one program."""

ROWS, WARPS = 4, 1
"""Rows and warps of a program: several warps would wait for each other at every column."""


@triton.jit  # type: ignore[untyped-decorator]
def _adjust(  # type: ignore[no-untyped-def]
    values,
    gone,
    spread,
    scale,
    rows,
    size,
    apart,
    stride,
    count,
    BLOCK: tl.constexpr,
    CELL: tl.constexpr,
    LINES: tl.constexpr,
):
    lines = tl.program_id(0) * LINES + tl.arange(0, LINES)
    places = tl.arange(0, BLOCK)
    inside = (lines < rows)[:, None] & (places < size)[None, :]
    own = lines.to(tl.int64)[:, None]
    block = tl.load(values + own * apart + places[None, :], mask=inside, other=0.0)
    marks = tl.load(gone + own * size + places[None, :], mask=inside, other=0).to(tl.int32)
    scales = tl.load(scale + places, mask=places < size, other=0.0)
    for column in range(0, size):
        if CELL > 0:  # noqa: SIM102 - known when it is compiled; the other is not
            if column % CELL == 0:
                scores = block * scales[None, :]
                scores = scores * scores
                scores = tl.where(scores != scores, float("inf"), scores)
                scores = tl.where(marks != 0, -1.0, scores)
                rank = tl.zeros([LINES, BLOCK], dtype=tl.int32)
                for other in tl.static_range(CELL):
                    at = column + other
                    theirs = tl.sum(tl.where((places == at)[None, :], scores, 0.0), axis=1)[:, None]
                    before = (theirs < scores) | ((theirs == scores) & (places > at)[None, :])
                    rank += before.to(tl.int32)
                cell = (places >= column) & (places < column + CELL)
                marks = tl.where(cell[None, :] & (rank < count), 1, marks)
        here = (places == column)[None, :]
        pruned = tl.sum(tl.where(here & (marks != 0), block, 0.0), axis=1)
        line = tl.load(spread + column * stride + places, mask=(places > column) & (places < size), other=0.0)
        block = block - pruned[:, None] * line[None, :]
        block = tl.where(here & (marks != 0), 0.0, block)
    tl.store(values + own * apart + places[None, :], block, mask=inside)
    tl.store(gone + own * size + places[None, :], marks.to(tl.int8), mask=inside)


def adjust(values: Tensor, gone: Tensor, spread: Tensor, scale: Tensor, cell: int | None, count: int) -> None:
    """Prune and adjust a block of columns in place.

    Args:
        values: weights of the block, out × size, in float32; rows may lie apart.
        gone: which of them are pruned, in one piece; under N:M only those that are zero already, and added to.
        spread: size × size, what is taken from the columns behind it for a pruned weight of one; rows may lie apart.
        scale: for each column the number that its weights are scored by.
        cell: consecutive columns of which some are pruned (N:M), or None where `gone` says it all.
        count: pruned in each cell.
    """
    rows, size = values.shape
    block = max(16, triton.next_power_of_2(size))
    with starting_at(values):
        _adjust[(triton.cdiv(rows, ROWS),)](
            values,
            gone.view(torch.int8),
            spread,
            scale,
            rows,
            size,
            values.stride(0),
            spread.stride(0),
            count,
            BLOCK=block,
            CELL=cell or 0,
            LINES=ROWS,
            num_warps=WARPS,
            enable_fp_fusion=False,
        )
