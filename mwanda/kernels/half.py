"""Products of half-precision matrices with results in float32, found out by trying whether a device has them."""

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from mwanda.kernels.trial import passes


def takes(values: Tensor) -> bool:
    """Return whether `product` can multiply such values as they are."""
    halves = values.dtype in (torch.bfloat16, torch.float16)
    return halves and values.device.type != "cpu" and agrees(values.device, values.dtype)


def product(left: Float[Tensor, "M K"], right: Float[Tensor, "K N"], out: Float[Tensor, "M N"]) -> Float[Tensor, "M N"]:
    """Multiply half precision into float32.

    A product of two numbers of half precision is exact in float32; sums are rounded as those of float32 are, in the
    order in which the device adds. (Without `out_dtype` the result would be rounded to half precision.)

    Args:
        left: a matrix of half precision.
        right: another one.
        out: where the product is written, also to a part of a larger matrix.
    """
    return torch.mm(left, right, out_dtype=torch.float32, out=out)


@cache
def agrees(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether the device has such products, and they are those of float64 but for rounding in float32."""
    values = torch.randn(300, 128, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    left = values[:, 64:].T
    expected = left.double() @ values.double()
    # In part of a larger matrix, as blocks of second moments are.
    around = torch.zeros(len(expected) + 16, expected.shape[1] + 16, device=device)
    inner = around[8:-8, 8:-8]

    def trial() -> str | None:
        product(left, values, inner)
        error = float((inner - expected).abs().max() / expected.abs().max())
        outside = float(around.count_nonzero() - inner.count_nonzero())
        return None if error < 1e-5 and not outside else f"they are wrong by {max(error, outside):.1e}"

    return passes(trial, f"products of {dtype} into float32 are not used on {device}")
