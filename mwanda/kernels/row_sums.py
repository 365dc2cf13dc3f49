"""Adds up exponentials of each row in one pass, by Triton; for accelerators that it compiles for."""

import triton
import triton.language as tl
from torch import Tensor

from mwanda.kernels.trial import starting_at


BLOCK = 1024
"""Logits that a program holds at once."""


@triton.jit  # type: ignore[untyped-decorator]
def _add_exponentials(logits, shift, total, size, stride, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    number = tl.program_id(0)
    row = logits + number.to(tl.int64) * stride
    less = tl.load(shift + number)
    found = tl.zeros((BLOCK,), tl.float32)
    for begin in range(0, size, BLOCK):
        places = begin + tl.arange(0, BLOCK)
        inside = places < size
        values = tl.load(row + places, mask=inside, other=0.0)
        found += tl.where(inside, tl.exp(values - less), 0.0)
    tl.store(total + number, tl.load(total + number) + tl.sum(found, axis=0))


def add_exponentials(logits: Tensor, shift: Tensor, total: Tensor) -> None:
    """Add `Σ exp(logit − shift)` of each row to its total, in float32; rows are each in one piece."""
    rows, size = logits.shape
    with starting_at(logits):
        _add_exponentials[(rows,)](logits, shift, total, size, logits.stride(0), BLOCK=BLOCK, num_warps=4)
