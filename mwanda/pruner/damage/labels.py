"""Draws tokens from a model's own predictions, without ever holding the logits of the whole vocabulary."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mwanda.kernels.vocabulary import chunk_for
from mwanda.models.head import OutputHead


DRAWN_AT_ONCE = 1 << 13
"""Tokens of the vocabulary handled at once on an accelerator, which is waited for at each such piece."""

PER_LOGIT = 4 + 3 * 8
"""Bytes that drawing takes for each position and token of the vocabulary handled at once."""


def vocabulary_at_once(device: torch.device, positions: int) -> int:
    """Return how many tokens of the vocabulary to handle together: fewer where there are many positions."""
    return min(DRAWN_AT_ONCE, chunk_for(device, positions))


@dataclass(frozen=True)
class Draws:
    """The randomness of one batch, made beforehand so that it depends on neither the size of batches nor processes.

    Args:
        positions: at which tokens are drawn, in each sequence.
        uniforms: in [0, 1), two for each draw and position.
    """

    positions: Int[Tensor, "B P"]
    uniforms: Float[Tensor, "R 2 B P"]

    def split(self, size: int) -> "list[Draws]":
        """Return the draws of batches of `size` sequences."""
        parts = zip(self.positions.split(size), self.uniforms.split(size, dim=2), strict=True)
        return [Draws(positions, uniforms) for positions, uniforms in parts]


def draws_of(sequences: int, length: int, labels: float, draws: int, seed: int) -> Draws:
    """Return the randomness of a set of sequences, at a share `labels` of their positions and at least at one."""
    generator = torch.Generator().manual_seed(seed)
    count = max(1, round(labels * length))
    order = torch.rand(sequences, length, generator=generator).argsort(dim=1, stable=True)
    uniforms = torch.rand(draws, 2, sequences, count, generator=generator, dtype=torch.float64)
    return Draws(order[:, :count].sort(dim=1).values, uniforms)


def draw_tokens(
    hidden: Float[Tensor, "N D"], head: OutputHead, uniforms: Float[Tensor, "R N"], chunk: int | None = None
) -> Int[Tensor, "R N"]:
    """Return tokens drawn from `softmax(logits)` at each position, by inverting its distribution function.

    First the chunk of the vocabulary in which the token lies is found from the mass of each, then the token, for which
    the logits of that chunk are made again.

    Args:
        hidden: at each position.
        head: makes logits.
        uniforms: one for each token.
        chunk: tokens of the vocabulary handled at once; None chooses by the device.
    """
    chunk = chunk or vocabulary_at_once(hidden.device, len(hidden))
    masses = torch.stack([piece.logsumexp(dim=1) for piece in head.chunks(hidden, chunk)], dim=1)
    shares = masses.double().softmax(dim=1)
    wanted = uniforms.to(shares).T
    chosen, inside = _invert(shares, wanted)
    tokens = torch.zeros_like(chosen)
    for index in chosen.unique().tolist():
        rows, columns = (chosen == index).nonzero(as_tuple=True)
        begin = index * chunk
        logits = head.chunk(hidden[rows], begin, begin + chunk)
        found, _ = _invert(logits.double().softmax(dim=1), inside[rows, columns][:, None])
        tokens[rows, columns] = begin + found[:, 0]
    return tokens.T


def _invert(shares: Float[Tensor, "N C"], wanted: Float[Tensor, "N R"]) -> tuple[Int[Tensor, "N R"], Tensor]:
    """Return in which of the `shares`, one after another, each wanted value lies, and how far into it."""
    up_to = shares.cumsum(dim=1)
    wanted = wanted * up_to[:, -1:]  # one but for rounding
    found = torch.searchsorted(up_to, wanted.contiguous(), right=True).clamp(max=shares.shape[1] - 1)
    share = shares.gather(1, found)
    inside = (wanted - (up_to.gather(1, found) - share)) / share.clamp(min=torch.finfo(share.dtype).tiny)
    return found, inside.clamp(0, 1)
