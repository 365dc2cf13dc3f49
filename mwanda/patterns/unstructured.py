"""Unstructured sparsity: any weight of a comparison group may be pruned."""

from bisect import bisect_right
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Int
from torch import Tensor

from mwanda.patterns.base import ComparisonGroup, Quota, count_to_remove


@dataclass(frozen=True)
class Unstructured:
    """Prune `floor(s · size)` weights of each comparison group: an output row, or the whole matrix.

    Where some rows hold more zeros than that already, the other rows give up less, so that the matrix as a whole
    stays within one weight per row of its budget.
    """

    name: ClassVar[str] = "unstructured"
    cell: ClassVar[int | None] = None

    def fixed_sparsity(self) -> float | None:
        """Return None: any target will do."""
        return None

    def check(self, shape: tuple[int, int]) -> None:
        """Accept every shape."""

    def groups(self, values: Tensor, group: ComparisonGroup) -> Tensor:
        """Return the rows, or the whole matrix as one."""
        return values if group == "row" else values.reshape(1, -1)

    def quota(self, zeros: Int[Tensor, " groups"], size: int, sparsity: float) -> Quota:
        """Return the largest count up to `floor(s · size)` with which all groups together do not overspend."""
        prune_per_group = count_to_remove(sparsity, size)
        budget = count_to_remove(sparsity, size * zeros.numel())

        def total(count: int) -> int:
            return int(zeros.clamp(min=count).sum())

        if total(prune_per_group) > budget:
            prune_per_group = max(0, bisect_right(range(prune_per_group), budget, key=total) - 1)
        return Quota(prune_per_group, total(prune_per_group))
