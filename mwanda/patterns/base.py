"""The interface of a sparsity pattern, and the selection that every pattern shares."""

from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mwanda.kernels.lowest import lowest


ComparisonGroup = Literal["row", "matrix"]
"""Weights that compete with each other under the unstructured pattern."""


@dataclass(frozen=True)
class Quota:
    """How many weights of a matrix are pruned.

    Args:
        prune_per_group: in each comparison group the `prune_per_group` lowest scores are removed.
        planned: zeros of the whole matrix afterwards; more than `prune_per_group` a group where there were more before.
        by_row: how many are removed in each row, on the CPU, where rows differ; otherwise None.
    """

    prune_per_group: int
    planned: int
    by_row: Int[Tensor, " out"] | None = None

    def over_rows(self, sparsities: Float[Tensor, " out"], size: int, zeros: Int[Tensor, " out"]) -> "Quota":
        """Return the zeros of a matrix whose rows are each as near to a sparsity as whole numbers allow.

        They are as many as the mean sparsity asks for of the matrix as a whole.

        Args:
            sparsities: of the rows.
            size: weights in a row.
            zeros: of each row that are there already, which no row has less of.
        """
        wanted = sparsities.double().clamp(0, 1) * size
        counts = torch.maximum(wanted.long(), zeros.long())
        rest = wanted - counts
        planned = max(self.planned, count_to_remove(float(sparsities.double().mean()), size * len(counts)))
        while missing := planned - int(counts.sum()):
            step = 1 if missing > 0 else -1
            open_rows = (counts < size) if missing > 0 else (counts > zeros)
            order = torch.where(open_rows, rest * step, -torch.inf).argsort(descending=True, stable=True)
            chosen = order[: min(abs(missing), int(open_rows.sum()))]
            counts[chosen] += step
            rest[chosen] -= step
        return replace(self, planned=planned, by_row=counts)


@runtime_checkable
class Pattern(Protocol):
    """A sparsity pattern: which weights are compared with each other, and how many of them are pruned."""

    @property
    def name(self) -> str:
        """What results.json calls it."""
        ...

    @property
    def cell(self) -> int | None:
        """Consecutive inputs of a row that compete with each other (N:M), or None for any."""
        ...

    def fixed_sparsity(self) -> float | None:
        """Return the only sparsity this pattern can have, or None when any target will do."""
        ...

    def check(self, shape: tuple[int, int]) -> None:
        """Raise SparsityError when a matrix of this shape (out, in) cannot follow the pattern."""
        ...

    def groups(self, values: Tensor, group: ComparisonGroup) -> Tensor:
        """Return a matrix (out × in) as comparison groups (groups × size)."""
        ...

    def quota(self, zeros: Int[Tensor, " groups"], size: int, sparsity: float) -> Quota:
        """Return how many weights are pruned; `zeros` of each group's `size` weights are zero already, and count."""
        ...


def removed(
    pattern: Pattern, scores: Float[Tensor, "out in"], prune_per_group: int, group: ComparisonGroup
) -> Bool[Tensor, "out in"]:
    """Return True where a weight is removed; weights that are zero already must be scored below zero."""
    return lowest(pattern.groups(scores, group), prune_per_group).view(scores.shape)


def count_to_remove(sparsity: float, size: int) -> int:
    """Return `floor(sparsity · size)`, taking 0.29 of 100 as 29 although the product rounds to 28.999 and so on."""
    return int(sparsity * size * (1 + 1e-12))
