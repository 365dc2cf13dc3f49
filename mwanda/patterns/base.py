"""What a pattern is, and the selection that every pattern shares."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mwanda.criteria.base import ComparisonGroup


@runtime_checkable
class Pattern(Protocol):
    """Turns scores into the mask of weights to remove."""

    @property
    def name(self) -> str:
        """What results.json calls it."""
        ...

    def fixed_sparsity(self) -> float | None:
        """Return the only sparsity this pattern can have, or None when any target will do."""
        ...

    def check(self, shape: tuple[int, int]) -> None:
        """Raise SparsityError when a matrix of this shape (out, in) cannot follow the pattern."""
        ...

    def removed(
        self, scores: Float[Tensor, "out in"], sparsity: float, group: ComparisonGroup
    ) -> Bool[Tensor, "out in"]:
        """Return True where a weight is removed; weights that are zero already are scored below zero."""
        ...

    def planned(self, zeros: Bool[Tensor, "out in"], sparsity: float, group: ComparisonGroup) -> int:
        """Return how many zeros the matrix must hold afterwards, when those in `zeros` were there before."""
        ...


def count_to_remove(sparsity: float, size: int) -> int:
    """Return `floor(sparsity · size)`, taking 0.29 of 100 as 29 although the product rounds to 28.999 and so on."""
    return int(sparsity * size * (1 + 1e-12))


def lowest(scores: Float[Tensor, "groups size"], count: int) -> Bool[Tensor, "groups size"]:
    """Mark the `count` lowest scores of each row; among equals the leftmost first, as in a stable sort."""
    if count <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    if count >= scores.shape[1]:
        return torch.ones_like(scores, dtype=torch.bool)
    threshold = torch.kthvalue(scores, count, dim=1, keepdim=True).values
    below = scores < threshold
    tied = scores == threshold
    still_needed = count - below.sum(dim=1, keepdim=True)
    return below | (tied & (tied.cumsum(dim=1) <= still_needed))
