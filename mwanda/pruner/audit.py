"""Counts zeros before and after pruning and compares them with the plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mwanda.errors import AuditError, SparsityError
from mwanda.export.bits import AT_ONCE, digests
from mwanda.models import Block
from mwanda.models.weights import Resident, Weights, visit
from mwanda.patterns import Pattern
from mwanda.patterns.base import ComparisonGroup


ZeroCounts = Mapping[str, Int[Tensor, " groups"]]
"""For each matrix, on the CPU, how many weights of each comparison group are zero."""


@dataclass
class MatrixPlan:
    """What was planned for a matrix, what was counted afterwards, and a digest of its mask."""

    name: str
    shape: tuple[int, int]
    block: int
    target: float
    zeros_before: int
    planned: int
    zeros: int = -1
    mask: str = ""


def check_blocks(
    blocks: Sequence[Block],
    pattern: Pattern,
    group: ComparisonGroup,
    sparsity: float,
    weights: Weights | None = None,
) -> ZeroCounts:
    """Return the zeros that are there already, or refuse what the weights do not allow.

    Raises:
        SparsityError: a matrix cannot follow the pattern, there are more zeros than the target, or no finite weights.
    """
    for block in blocks:
        for matrix in block.matrices:
            pattern.check(matrix.shape)
    counts: dict[str, Tensor] = {}
    for block in visit(weights or Resident(), blocks):
        # Extremes are infinite or not a number when any weight is.
        extremes = [torch.stack(torch.aminmax(matrix.weight)) for matrix in block.matrices]
        finite = torch.stack(extremes).isfinite().all(dim=1)
        zeros = [_zeros(pattern.groups(matrix.weight, group)) for matrix in block.matrices]
        # One transfer a block, so that an accelerator is not waited for at each matrix.
        sizes = [len(finite), *(part.numel() for part in zeros)]
        sound, *parts = torch.cat([finite.to(zeros[0]), *zeros]).cpu().split(sizes)
        for matrix, each in zip(block.matrices, sound.tolist(), strict=True):
            if not each:
                raise SparsityError(f"{matrix.name} holds weights that are not finite; the model file is damaged")
        counts.update({matrix.name: part.clone() for matrix, part in zip(block.matrices, parts, strict=True)})
    total, size = sum(int(count.sum()) for count in counts.values()), sum(block.size for block in blocks)
    if pattern.fixed_sparsity() is None and total > sparsity * size:
        raise SparsityError(
            f"sparsity={sparsity}: {total / size:.4f} of the prunable weights are zero already; choose a larger target"
        )
    return counts


def audit(blocks: Sequence[Block], plans: Sequence[MatrixPlan], weights: Weights | None = None) -> None:
    """Count the zeros of every matrix, write them and the mask's digest into its plan, and fail on any difference.

    Raises:
        AuditError: a matrix was left out, pruned twice, or holds another number of zeros than planned.
    """
    by_name = {plan.name: plan for plan in plans}
    names = {matrix.name for block in blocks for matrix in block.matrices}
    if len(by_name) != len(plans) or set(by_name) != names:
        missing = sorted(names - set(by_name))
        raise AuditError(f"not every matrix was pruned exactly once; not pruned: {', '.join(missing) or 'none'}")
    for block in visit(weights or Resident(), blocks):
        counts = torch.stack([_zeros(matrix.weight).sum() for matrix in block.matrices]).tolist()
        for matrix, count in zip(block.matrices, counts, strict=True):
            plan = by_name[matrix.name]
            plan.zeros = count
            if plan.zeros != plan.planned:
                raise AuditError(f"{matrix.name} holds {plan.zeros} zeros where {plan.planned} were planned")
        masks = digests([matrix.weight for matrix in block.matrices])
        for matrix, mask in zip(block.matrices, masks, strict=True):
            by_name[matrix.name].mask = mask


def check_budget(plans: Sequence[MatrixPlan], sparsity: float, groups: int) -> None:
    """Hold what was counted against what was asked for: one weight of each comparison group is lost to rounding down.

    Args:
        plans: of all matrices, after the audit.
        sparsity: over all of them.
        groups: of all of them.

    Raises:
        AuditError: it is further away.
    """
    found, size = sum(plan.zeros for plan in plans), sum(plan.shape[0] * plan.shape[1] for plan in plans)
    if abs(found - sparsity * size) > groups:
        raise AuditError(f"{found} of {size} weights are zero where sparsity={sparsity} was asked for")


def _zeros(values: Float[Tensor, "groups size"]) -> Int[Tensor, " groups"]:
    rows = max(1, AT_ONCE // values.shape[1])
    return torch.cat([(part == 0).view(torch.uint8).sum(dim=1, dtype=torch.int32) for part in values.split(rows)])
