"""What an accelerator does better with a large vocabulary, each found out by trying it against the plain way."""

import logging
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from mwanda.kernels import half
from mwanda.kernels.trial import passes


VOCABULARY_CHUNK = 2048
"""Tokens whose logits stay in the processor's cache, which makes a chunk faster than whole rows."""

AT_ONCE = 1 << 26
"""Logits held at once elsewhere: many enough that starting a kernel costs nothing beside its work."""


def chunk_for(device: torch.device, positions: int) -> int:
    """Return how many tokens of the vocabulary to look at together."""
    if device.type == "cpu":
        return VOCABULARY_CHUNK
    return max(1, AT_ONCE // (max(1, positions) * VOCABULARY_CHUNK)) * VOCABULARY_CHUNK


def product(
    hidden: Float[Tensor, "N D"], rows: Float[Tensor, "C D"], memory: Float[Tensor, " M"]
) -> Float[Tensor, "N C"]:
    """Return logits in float32, made in `memory`: straight from the product where the device can, or converted."""
    out = memory[: len(hidden) * len(rows)].view(len(hidden), len(rows))
    if out.dtype != hidden.dtype:
        return torch.mm(hidden, rows.T, out_dtype=out.dtype, out=out)
    return torch.mm(hidden, rows.T, out=out).float()


def memory_for(hidden: Float[Tensor, "N D"], columns: int) -> Float[Tensor, " M"]:
    """Return memory for the logits of so many tokens, in the dtype in which the device makes them."""
    return hidden.new_empty(len(hidden) * columns, dtype=torch.float32 if half.takes(hidden) else hidden.dtype)


def add_exponentials(logits: Float[Tensor, "N C"], shift: Float[Tensor, "N 1"], total: Float[Tensor, "N 1"]) -> None:
    """Add `Σ exp(logit − shift)` of each position to its total, in place; the logits are lost."""
    if logits.device.type != "cpu" and agrees(logits.device):
        from mwanda.kernels import row_sums

        row_sums.add_exponentials(logits, shift, total)
    else:
        total += logits.sub_(shift).exp_().sum(dim=1, keepdim=True)


@cache
def agrees(device: torch.device) -> bool:
    """Return whether the kernel of `row_sums` can be compiled for the device, and does what the plain way does."""
    generator = torch.Generator().manual_seed(0)
    logits, shift = torch.randn(4, 1500, generator=generator).to(device), torch.ones(4, 1, device=device)
    total = torch.ones(4, 1, device=device)

    def trial() -> str | None:
        from mwanda.kernels import row_sums

        row_sums.add_exponentials(logits, shift, total)
        expected = 1 + (logits - shift).exp().sum(dim=1, keepdim=True)
        return None if torch.allclose(total, expected, rtol=1e-5) else "it differs"

    return passes(trial, f"the kernel of sums is not used on {device}", logging.INFO)
