"""The second moment `XᵀX` of many tokens, the most expensive of all statistics."""

from collections.abc import Callable

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

Product = Callable[[Float[Tensor, "M N"], Float[Tensor, "N I"]], Float[Tensor, "M I"]]


def moment_of(
    left: Float[Tensor, "B T J"], right: Float[Tensor, "B T I"], weights: Float[Tensor, " B"] | None
) -> Float[Tensor, "J I"]:
    """Return `Σ_b w_b Σ_t l_bt r_btᵀ` in float32; where `left` is `right` that is the second moment.

    Half precision that an accelerator multiplies into float32 is read as it is, so that products are exact and sums are
    those of float32: weights scale the sum of a sequence, in float32. Everywhere else tokens are brought to float32 and
    scaled by the root of their weight.

    Args:
        left: inputs.
        right: the same inputs, or others of the same tokens.
        weights: of the sequences; None weighs all of them one.
    """
    if left.dtype == right.dtype and half.takes(right):
        return _in_half(left, right, weights)
    rows = _scaled(right, weights)
    return second_moment(rows) if left is right else _scaled(left, weights).T @ rows


def thinned_moment(
    inputs: Float[Tensor, "B T I"],
    squares: Float[Tensor, "B I"],
    weights: Float[Tensor, " B"] | None,
    share: float,
) -> Float[Tensor, "I I"]:
    """Return the second moment with correlations from a share of the tokens, and the energy of inputs from all of them.

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
        for part, factor, weight in zip(some, scale, weights, strict=True):
            product = _by_halves(part, WIDE, half.product)
            moment.addcmul_(product.mul_(factor[:, None]), factor * weight)
    else:
        moment = second_moment((some.float() * (scale * weights.sqrt().to(scale)[:, None])[:, None]).flatten(0, 1))
    moment.diagonal().copy_(weights.to(squares) @ squares)
    return moment


def _scaled(inputs: Float[Tensor, "B T I"], weights: Float[Tensor, " B"] | None) -> Float[Tensor, "N I"]:
    """Return all tokens in float32, scaled by the root of their weight."""
    values = inputs.float()
    return (values if weights is None else values * weights.sqrt().to(values)[:, None, None]).flatten(0, 1)


def _in_half(
    left: Float[Tensor, "B T J"], right: Float[Tensor, "B T I"], weights: Float[Tensor, " B"] | None
) -> Float[Tensor, "J I"]:
    def moment(mine: Tensor, theirs: Tensor) -> Tensor:
        return _by_halves(theirs, WIDE, half.product) if left is right else half.product(mine.T, theirs)

    if weights is None:
        return moment(left.flatten(0, 1), right.flatten(0, 1))
    total = torch.zeros(left.shape[2], right.shape[2], device=right.device)
    for mine, theirs, weight in zip(left, right, weights.float(), strict=True):
        total.addcmul_(moment(mine, theirs), weight)
    return total


def second_moment(rows: Float[Tensor, "N I"]) -> Float[Tensor, "I I"]:
    """Return `Σ_t x_t x_tᵀ`; on the CPU only one half is multiplied out, as the other is its mirror image."""
    # Products of blocks are those of the whole to the bit, but for narrow rests.
    if rows.device.type != "cpu" or rows.shape[1] % (BLOCK // 4):
        return rows.T @ rows
    return _by_halves(rows, BLOCK, torch.mm)


def _by_halves(rows: Float[Tensor, "N I"], block: int, product: Product) -> Float[Tensor, "I I"]:
    """Multiply out a block of features with itself and those behind it, and mirror the rest."""
    features = rows.shape[1]
    if features <= block:
        return product(rows.T, rows)
    columns, moment = rows.T, rows.new_empty(features, features, dtype=torch.float32)
    if rows.device.type == "cpu":
        columns = columns.contiguous()
    for first in range(0, features, block):
        last = min(first + block, features)
        part = product(columns[first:last], rows[:, first:])
        moment[first:last, first:] = part
        moment[last:, first:last] = part[:, block:].T
    return moment
