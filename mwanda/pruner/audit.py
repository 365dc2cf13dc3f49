"""Counts zeros before and after pruning and compares them with the plan."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mwanda.errors import AuditError, SparsityError
from mwanda.models import Block, Matrix
from mwanda.patterns import Pattern


@dataclass
class MatrixPlan:
    """What was planned for a matrix, and what was counted afterwards."""

    name: str
    shape: tuple[int, int]
    block: int
    target: float
    zeros_before: int
    planned: int
    zeros: int = -1


def check_target(blocks: Sequence[Block], sparsity: float) -> list[int]:
    """Return the zeros that each block holds already.

    Raises:
        SparsityError: there are more of them than the target allows, or a weight is not a number.
    """
    zeros = [sum(int((matrix.weight == 0).sum()) for matrix in block.matrices) for block in blocks]
    size = sum(block.size for block in blocks)
    if sum(zeros) > sparsity * size:
        raise SparsityError(
            f"sparsity={sparsity}: {sum(zeros) / size:.4f} of the prunable weights are zero already; "
            "choose a larger target"
        )
    for block in blocks:
        for matrix in block.matrices:
            if not bool(torch.isfinite(matrix.weight).all()):
                raise SparsityError(f"{matrix.name} holds weights that are not finite; the model file is damaged")
    return zeros


def audit(matrices: Sequence[Matrix], plans: Sequence[MatrixPlan], pattern: Pattern) -> None:
    """Count the zeros of every matrix, write them into its plan, and fail on any difference.

    Raises:
        AuditError: a matrix was left out, pruned twice, or holds another number of zeros than planned.
    """
    by_name = {plan.name: plan for plan in plans}
    if len(by_name) != len(plans) or set(by_name) != {matrix.name for matrix in matrices}:
        missing = sorted({matrix.name for matrix in matrices} - set(by_name))
        raise AuditError(f"not every matrix was pruned exactly once; not pruned: {', '.join(missing) or 'none'}")
    for matrix in matrices:
        plan = by_name[matrix.name]
        plan.zeros = int((matrix.weight == 0).sum())
        if plan.zeros != plan.planned:
            raise AuditError(f"{matrix.name} holds {plan.zeros} zeros where {plan.planned} were planned")
