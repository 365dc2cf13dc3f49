"""Divides a target sparsity among blocks or matrices, and those of a block among its matrices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from mwanda.errors import SparsityError
from mwanda.models import Block, Matrix
from mwanda.pruner.audit import ZeroCounts
from mwanda.schedules import Schedule
from mwanda.schedules.base import Level, LooksAtGradients
from mwanda.schedules.uniform import Uniform


@dataclass(frozen=True)
class Allocation:
    """The sparsity of each block, in their order, and of each matrix by its name; of single rows where these differ."""

    blocks: list[float]
    matrices: Mapping[str, float]
    rows: Mapping[str, Float[Tensor, " out"]] = field(default_factory=dict)


def units_of(block: Block, level: Level) -> list[tuple[Matrix, ...]]:
    """Return the units of a block that a schedule gives a sparsity each: the block itself, or its matrices."""
    return [block.matrices] if level == "block" else [(matrix,) for matrix in block.matrices]


def allocate(
    blocks: Sequence[Block],
    schedule: Schedule,
    signals: Sequence[Sequence[float]],
    target: float,
    zeros: ZeroCounts,
    *,
    alike: bool = False,
) -> Allocation:
    """Return what `schedule` makes of the signals of all units.

    Args:
        blocks: of the model.
        schedule: see above.
        signals: of each unit, in the order of the model; empty when the schedule looks at nothing.
        target: the sparsity over all matrices.
        zeros: those that are there already.
        alike: whether all matrices have the target, whatever zeros they hold (N:M).

    Raises:
        SparsityError: the sparsities miss the target, or are out of bounds.
    """
    if alike:
        every = (matrix.name for block in blocks for matrix in block.matrices)
        return Allocation([target] * len(blocks), dict.fromkeys(every, target))
    units = [unit for block in blocks for unit in units_of(block, schedule.level)]
    sizes = [_size(unit) for unit in units]
    shares = [size / sum(sizes) for size in sizes]
    lower = [_zeros(unit, zeros) / size for unit, size in zip(units, sizes, strict=True)]
    sparsities = schedule.allocate(signals, shares, target, lower)
    achieved = sum(share * value for share, value in zip(shares, sparsities, strict=True))
    # A unit that is empty already is the one case in which a sparsity of 1 is right.
    bounded = all(0 <= value < 1 or value == floor for value, floor in zip(sparsities, lower, strict=True))
    if not (abs(achieved - target) <= 1e-9 and bounded):
        raise SparsityError(f"the schedule gave {achieved:.6f} over all matrices where {target} was asked for")
    matrices: dict[str, float] = {}
    for unit, sparsity in zip(units, sparsities, strict=True):
        inside = _within(unit, sparsity, zeros)
        matrices.update({matrix.name: value for matrix, value in zip(unit, inside, strict=True)})
    if schedule.level == "block":
        return Allocation(sparsities, matrices)
    sums = [sum(matrix.weight.numel() * matrices[matrix.name] for matrix in block.matrices) for block in blocks]
    return Allocation([total / block.size for total, block in zip(sums, blocks, strict=True)], matrices)


def over_rows(
    allocation: Allocation,
    schedule: LooksAtGradients,
    signals: Sequence[Sequence[float]],
    rows: Mapping[str, Float[Tensor, " out"]],
    zeros: ZeroCounts,
    blocks: Sequence[Block],
) -> Allocation:
    """Return the same with a sparsity for each row of the matrices whose rows' damage is known.

    Args:
        allocation: of blocks and matrices.
        schedule: spreads the zeros of a matrix over its rows.
        signals: of all units.
        rows: the damage of each row.
        zeros: those of each row that are there already.
        blocks: of the model.
    """
    found = {}
    for block in blocks:
        for matrix in block.matrices:
            if matrix.name in rows:
                lower = (zeros[matrix.name].double() / matrix.shape[1]).tolist()
                sparsity = allocation.matrices[matrix.name]
                spread = schedule.over_rows(signals, rows[matrix.name], sparsity, lower)
                found[matrix.name] = torch.tensor(spread, dtype=torch.float64)
    return replace(allocation, rows=found)


def _within(unit: Sequence[Matrix], sparsity: float, zeros: ZeroCounts) -> list[float]:
    """Return the sparsity of each matrix: the unit's, or less where another holds more zeros than that already."""
    sizes = [matrix.weight.numel() for matrix in unit]
    lower = [_zeros([matrix], zeros) / size for matrix, size in zip(unit, sizes, strict=True)]
    return Uniform().allocate((), [size / sum(sizes) for size in sizes], sparsity, lower)


def _size(unit: Sequence[Matrix]) -> int:
    return sum(matrix.weight.numel() for matrix in unit)


def _zeros(unit: Sequence[Matrix], zeros: ZeroCounts) -> int:
    return sum(int(zeros[matrix.name].sum()) for matrix in unit)
