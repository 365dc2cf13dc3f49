"""Products of many experts in one go, found out by trying whether a device has them."""

from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mwanda.kernels.trial import passes


def takes(rows: Float[Tensor, "S I"], weight: Float[Tensor, "E O I"]) -> bool:
    """Return whether `product` can be used: in bfloat16, which an accelerator reads 16 bytes at a time."""
    fits = rows.dtype == weight.dtype == torch.bfloat16 and weight.shape[1] % 8 == weight.shape[2] % 8 == 0
    return fits and weight.is_contiguous() and rows.device.type != "cpu" and agrees(rows.device)


def product(
    rows: Float[Tensor, "S I"], weight: Float[Tensor, "E O I"], ends: Int[Tensor, " E"]
) -> Float[Tensor, "S O"]:
    """Return `rows · weight_eᵀ` for the rows up to the end of each expert's; waits for nothing."""
    return torch._grouped_mm(rows, weight.mT, offs=ends)


@cache
def agrees(device: torch.device) -> bool:
    """Return whether the device has such products, and they are those of each expert alone but for rounding."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(40, 64, generator=generator).to(device, torch.bfloat16)
    weight = torch.randn(3, 32, 64, generator=generator).to(device, torch.bfloat16)
    ends = torch.tensor([17, 17, 40], dtype=torch.int32).to(device)  # one has none
    expected = torch.cat([rows[:17].float() @ weight[0].float().T, rows[17:].float() @ weight[2].float().T])

    def trial() -> str | None:
        found = product(rows, weight, ends).float()
        return None if torch.allclose(found, expected, rtol=2e-2, atol=1e-1) else "they differ"

    return passes(trial, f"products of all experts in one go are not used on {device}")
