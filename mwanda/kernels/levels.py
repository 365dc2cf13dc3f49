"""Squares of products by row and level: whether the kernel of `level_sums` can be used, found out by a trial."""

from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mwanda.kernels.trial import passes


def takes(gradient: Float[Tensor, "B O I"], weight: Float[Tensor, "O I"], codes: Int[Tensor, "O I"]) -> bool:
    """Return whether `squares_by_row` can be used for these."""
    whole = gradient.is_contiguous() and weight.is_contiguous() and codes.is_contiguous()
    few = gradient.shape[1] < 1 << 16  # rows, as many as a card can count in its second direction
    narrow = {gradient.dtype, weight.dtype} <= {torch.float32, torch.bfloat16, torch.float16}
    fits = whole and few and narrow and codes.dtype == torch.uint8
    return fits and gradient.device.type != "cpu" and agrees(gradient.device, gradient.dtype, weight.dtype)


def squares_by_row(
    gradient: Float[Tensor, "B O I"], weight: Float[Tensor, "O I"], codes: Int[Tensor, "O I"], levels: int
) -> Float[Tensor, "B O K"]:
    """Return `Σ_j (g_bij w_ij)²` over the weights of each row that are removed at each level, in float32."""
    from mwanda.kernels import level_sums

    return level_sums.squares_by_row(gradient, weight, codes, levels)


def plainly(
    gradient: Float[Tensor, "B O I"], weight: Float[Tensor, "O I"], codes: Int[Tensor, "O I"], levels: int
) -> Float[Tensor, "B O K"]:
    """Return the same, one level after the other."""
    squares = (gradient.float() * weight.float()).square()
    return torch.stack([(squares * (codes <= level)).sum(dim=2) for level in range(levels)], dim=2)


@cache
def agrees(device: torch.device, gradient: torch.dtype, weight: torch.dtype) -> bool:
    """Return whether the kernel can be compiled for these dtypes, and does what the plain way does."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 3, 700, generator=generator).to(device, gradient)
    matrix = torch.randn(3, 700, generator=generator).to(device, weight)
    codes = torch.randint(4, (3, 700), generator=generator).to(device, torch.uint8)

    def trial() -> str | None:
        found, expected = squares_by_row(values, matrix, codes, 3), plainly(values, matrix, codes, 3)
        return None if torch.allclose(found, expected, rtol=1e-4) else "its sums differ"

    return passes(trial, f"the kernel of squares is not used for {gradient} and {weight} on {device}")
