"""A pattern's decisions for one matrix, from scores alone."""

from jaxtyping import Bool, Float
from torch import Tensor

from mwanda.patterns import Pattern, Quota, removed
from mwanda.patterns.base import ComparisonGroup


def quota(pattern: Pattern, zeros: Bool[Tensor, "out in"], sparsity: float, group: ComparisonGroup) -> Quota:
    """Return how many weights are pruned of a matrix that holds `zeros` already."""
    groups = pattern.groups(zeros, group)
    return pattern.quota(groups.sum(dim=1), groups.shape[1], sparsity)


def planned(pattern: Pattern, zeros: Bool[Tensor, "out in"], sparsity: float, group: ComparisonGroup) -> int:
    """Return how many zeros the matrix is to hold."""
    return quota(pattern, zeros, sparsity, group).planned


def chosen(
    pattern: Pattern, scores: Float[Tensor, "out in"], sparsity: float, group: ComparisonGroup
) -> Bool[Tensor, "out in"]:
    """Return what is removed; weights that are zero already are scored below zero."""
    return removed(pattern, scores, quota(pattern, scores < 0, sparsity, group).prune_per_group, group)
