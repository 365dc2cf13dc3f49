"""The second moment `XᵀX` of many tokens, the most expensive of all statistics.

It is symmetric, so that only what stands on and above its diagonal is multiplied out and added up, a block of features
with itself and all behind it at a time; `mirror` fills in the other half once all tokens have been seen.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from mwanda.kernels import half


BLOCK = 256
"""Features of which a block of products is made at a time on the CPU."""

WIDE = 2048
"""The same elsewhere: enough of them to keep all of an accelerator busy."""

SILENT = 1e-12
"""Share of an input's energy in a sequence below which its chosen tokens say nothing of its correlations."""


def cross_moment(
    left: Float[Tensor, "B T J"], right: Float[Tensor, "B T I"], weights: Float[Tensor, " B"] | None
) -> Float[Tensor, "J I"]:
    """Return `Σ_b w_b Σ_t l_bt r_btᵀ` in float32; products are made as those of `upper_moment` are.

    Args:
        left: inputs.
        right: others of the same tokens.
        weights: of the sequences; None weighs all of them one.
    """
    if left.dtype != right.dtype or not half.takes(right):
        return _scaled(left, weights).T @ _scaled(right, weights)
    total = torch.zeros(left.shape[2], right.shape[2], device=right.device)
    if weights is None:
        return half.product(left.flatten(0, 1).T, right.flatten(0, 1), total)
    part = torch.empty_like(total)
    for mine, theirs, weight in zip(left, right, weights.float(), strict=True):
        total.addcmul_(half.product(mine.T, theirs, part), weight)
    return total


def upper_moment(inputs: Float[Tensor, "B T I"], weights: Float[Tensor, " B"] | None) -> Float[Tensor, "I I"]:
    """Return `Σ_b w_b Σ_t x_bt x_btᵀ` in float32; what stands below the diagonal means nothing until it is mirrored.

    Half precision that an accelerator multiplies into float32 is read as it is, so that products are exact and sums are
    those of float32: weights scale the sum of a sequence, in float32. Everywhere else tokens are brought to float32 and
    scaled by the root of their weight.

    Args:
        inputs: of a matrix.
        weights: of the sequences; None weighs all of them one.
    """
    if not half.takes(inputs):
        return _of_rows(_scaled(inputs, weights))
    if weights is None:
        return _of_rows(inputs.flatten(0, 1))
    total = torch.zeros(inputs.shape[2], inputs.shape[2], device=inputs.device)
    for sequence, weight in zip(inputs, weights.float(), strict=True):
        for place, part in _parts(_of_rows(sequence)):
            total[place].addcmul_(part, weight)
    return total


def thinned_moment(
    inputs: Float[Tensor, "B T I"],
    squares: Float[Tensor, "B I"],
    weights: Float[Tensor, " B"] | None,
    share: float,
) -> Float[Tensor, "I I"]:
    """Return `upper_moment` with correlations from a share of the tokens, and the energy of inputs from all of them.

    `Σ_b w_b S_b (Σ_{t chosen} x_bt x_btᵀ) S_b` with `S_b² = Σ_t x_bt² / Σ_{t chosen} x_bt²` is positive semidefinite,
    with the diagonal of all tokens, at a share of the products. Each sequence is scaled for itself, so that nothing
    depends on how sequences are put into batches.

    Args:
        inputs: of the matrix.
        squares: sums of the squares of all tokens of each sequence.
        weights: of the sequences; None weighs all of them one.
        share: of the tokens of each sequence, at equal distances and at least one.
    """
    length = inputs.shape[1]
    count = max(1, round(share * length))
    some = inputs[:, torch.arange(count, device=inputs.device) * length // count]
    chosen = some.float().square().sum(dim=1)
    # Of an input that is next to silent at the chosen tokens nothing is known but its energy.
    silent = chosen <= squares.float() * SILENT
    scale = (squares.float() / chosen).sqrt().masked_fill_(silent, 0)
    weights = torch.ones(len(some), device=some.device) if weights is None else weights.float()
    if half.takes(some):
        moment = torch.zeros(inputs.shape[2], inputs.shape[2], device=inputs.device)
        for sequence, factor, weight in zip(some, scale, weights, strict=True):
            for (rows, columns), part in _parts(_of_rows(sequence)):
                moment[rows, columns].addcmul_(part.mul_(factor[rows, None]), factor[columns] * weight)
    else:
        moment = _of_rows((some.float() * (scale * weights.sqrt().to(scale)[:, None])[:, None]).flatten(0, 1))
    moment.diagonal().copy_(weights.to(squares) @ squares)
    return moment


def add_upper(total: Float[Tensor, "I I"], more: Float[Tensor, "I I"]) -> None:
    """Add an `upper_moment` to another one."""
    for place, part in _parts(more):
        total[place].add_(part)


def mirror(moment: Float[Tensor, "I I"]) -> None:
    """Put what stands above the diagonal below it as well."""
    for (rows, _), part in _parts(moment):
        own = moment[rows, rows]
        own.copy_(own.triu() + own.triu(1).T)
        moment[rows.stop :, rows] = part[:, len(part) :].T


def _scaled(inputs: Float[Tensor, "B T I"], weights: Float[Tensor, " B"] | None) -> Float[Tensor, "N I"]:
    """Return all tokens in float32, scaled by the root of their weight."""
    values = inputs.float()
    return (values if weights is None else values * weights.sqrt().to(values)[:, None, None]).flatten(0, 1)


def _of_rows(rows: Float[Tensor, "N I"]) -> Float[Tensor, "I I"]:
    """Multiply out each block of features with itself and those behind it, in float32."""
    product = torch.mm if rows.dtype == torch.float32 else half.product
    moment = torch.empty(rows.shape[1], rows.shape[1], device=rows.device)
    parts = list(_parts(moment))
    left = rows.T.contiguous() if rows.device.type == "cpu" and len(parts) > 1 else rows.T
    for (own, columns), part in parts:
        product(left[own], rows[:, columns], out=part)
    return moment


def _parts(moment: Float[Tensor, "I I"]) -> Iterator[tuple[tuple[slice, slice], Float[Tensor, "M N"]]]:
    """Yield for each block of features where its products with itself and all behind it stand, and these."""
    features = len(moment)
    # On the CPU products of blocks are those of the whole to the bit, but for narrow rests.
    block = WIDE if moment.device.type != "cpu" else BLOCK if features % (BLOCK // 4) == 0 else features
    for first in range(0, features, block):
        place = slice(first, min(first + block, features)), slice(first, features)
        yield place, moment[place]
