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


def product(left: Float[Tensor, "M K"], right: Float[Tensor, "K N"]) -> Float[Tensor, "M N"]:
    """Multiply half precision into float32.

    A product of two numbers of half precision is exact in float32; sums are rounded as those of float32 are, in the
    order in which the device adds. (Without `out_dtype` the result would be rounded to half precision.)
    """
    return torch.mm(left, right, out_dtype=torch.float32)


@cache
def agrees(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether the device has such products, and they are those of float64 but for rounding in float32."""
    values = torch.randn(300, 128, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    left = values[:, 64:].T
    expected = left.double() @ values.double()

    def trial() -> str | None:
        error = float((product(left, values) - expected).abs().max() / expected.abs().max())
        return None if error < 1e-5 else f"they are wrong by {error:.1e}"

    return passes(trial, f"products of {dtype} into float32 are not used on {device}")
