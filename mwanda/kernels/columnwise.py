"""SparseGPT's walk through a block of columns: plainly, or by the kernel of `columns` where a trial says so."""

from functools import cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mwanda.kernels.lowest import lowest
from mwanda.kernels.trial import passes


def adjust(
    values: Float[Tensor, "out size"],
    gone: Bool[Tensor, "out size"],
    spread: Float[Tensor, "size size"],
    scale: Float[Tensor, " size"],
    cell: int | None,
    count: int,
) -> None:
    """Prune and adjust a block of columns in place.

    Args:
        values: weights, which are adjusted for those that are pruned before them in their row.
        gone: which weights are pruned; under N:M only those that are zero already, and added to.
        spread: what is taken from the columns behind it for a pruned weight of one: `U_jk / U_jj`, read for `k > j`.
        scale: for each column the number that its weights are scored by.
        cell: consecutive columns of which some are pruned (N:M), or None where `gone` says it all.
        count: pruned in each cell.
    """
    kind = values.device, values.dtype, values.shape[1], cell
    whole = values.stride(1) == scale.stride(0) == 1 and gone.is_contiguous()
    if values.device.type != "cpu" and whole and agrees(*kind):
        from mwanda.kernels import columns

        columns.adjust(values, gone, spread.contiguous(), scale, cell, count)
    else:
        plainly(values, gone, spread, scale, cell, count)


def plainly(
    values: Float[Tensor, "out size"],
    gone: Bool[Tensor, "out size"],
    spread: Float[Tensor, "size size"],
    scale: Float[Tensor, " size"],
    cell: int | None,
    count: int,
) -> None:
    """Do what `adjust` does by a few operations for each column, on columns that each lie in one piece."""
    columns = values.T.contiguous()
    for column in range(len(columns)):
        if cell is not None and column % cell == 0:
            inside = slice(column, column + cell)
            gone[:, inside] |= lowest(scores_of(columns[inside].T, scale[inside], gone[:, inside]), count)
        pruned = columns[column] * gone[:, column]
        columns[column + 1 :].sub_(spread[column, column + 1 :, None] * pruned)
        columns[column].masked_fill_(gone[:, column], 0)
    values.copy_(columns.T)


def scores_of(
    values: Float[Tensor, "out size"], scale: Float[Tensor, " size"], zeros: Bool[Tensor, "out size"]
) -> Float[Tensor, "out size"]:
    """Return the scores of weights; those that are zero already come first."""
    return (values * scale).square().masked_fill(zeros, -1)


@cache
def agrees(device: torch.device, dtype: torch.dtype, size: int, cell: int | None) -> bool:
    """Return whether the kernel can be compiled for blocks of `size` columns, and does what the plain way does."""
    try:
        from mwanda.kernels import columns
    except ImportError:
        return False
    if dtype != torch.float32 or size > columns.WIDEST or (cell is not None and size % cell):
        return False
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(20, size, generator=generator)
    gone = torch.rand(values.shape, generator=generator) < (0.5 if cell is None else 0.1)
    spread = (torch.randn(size, size, generator=generator) / size).triu(1)
    scale = torch.rand(size, generator=generator) + 0.5
    values = values.to(device)  # not zero where they are gone: a zero that is adjusted is no longer one
    plain, tried = ((values.clone(), gone.to(device, copy=True)) for _ in range(2))
    spread, scale, count = spread.to(device), scale.to(device), (cell or 0) // 2
    plainly(*plain, spread, scale, cell, count)

    def trial() -> str | None:
        columns.adjust(*tried, spread, scale, cell, count)
        near = torch.allclose(tried[0], plain[0], rtol=1e-5, atol=1e-6)
        return None if near and tried[1].equal(plain[1]) else "its results differ"

    return passes(trial, f"the column kernel is not used for blocks of {size} (cell {cell}) on {device}")
