"""Whether the kernel of `rows` can be used on a device, found out by trying it against the plain way."""

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from mwanda.kernels.lowest import lowest
from mwanda.kernels.trial import passes


def zero_lowest(weight: Float[Tensor, "out in"], columns: Float[Tensor, " in"], count: int) -> bool:
    """Zero the `count` lowest `|w| · column` of each row in place, if there is a kernel for that; return whether so."""
    if weight.device.type == "cpu" or not 0 < count < weight.shape[1] or not agrees(*_kind(weight)):
        return False
    from mwanda.kernels import rows

    rows.zero_lowest(weight, columns.contiguous(), count)
    return True


def _kind(weight: Tensor) -> tuple[torch.device, torch.dtype, int, bool]:
    return weight.device, weight.dtype, weight.shape[1], weight.stride(1) == 1


@cache
def agrees(device: torch.device, dtype: torch.dtype, size: int, whole: bool) -> bool:
    """Return whether the kernel can be compiled for rows of `size` inputs, and does what the plain way does.

    Args:
        device: where.
        dtype: of the weights.
        size: of a row.
        whole: whether a row is in one piece.
    """
    try:
        from mwanda.kernels import rows
    except ImportError:
        return False
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, size, generator=generator)
    weight[::2].mul_(2).round_()  # equals, and zeros
    weight, columns = weight.to(device, dtype), torch.rand(size, generator=generator).to(device)
    if not (whole and rows.takes(weight)):
        return False
    scores = weight.abs().float().mul_(columns).masked_fill_(weight == 0, -1)
    expected = weight.masked_fill(lowest(scores, size // 2), 0)

    def trial() -> str | None:
        rows.zero_lowest(weight, columns, size // 2)
        return None if weight.equal(expected) else "its masks differ"

    return passes(trial, f"the row kernel is not used for {size} inputs in {dtype} on {device}")
