"""Unstructured sparsity: any weight of a comparison group may go."""

from bisect import bisect_right
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool, Float, Int
from torch import Tensor

from mwanda.criteria.base import ComparisonGroup
from mwanda.patterns.base import count_to_remove, lowest


@dataclass(frozen=True)
class Unstructured:
    """Remove `floor(s · size)` weights of each comparison group: an output row, or the whole matrix.

    Where some rows hold more zeros than that already, the other rows give up less, so that the matrix as a whole
    stays within one weight per row of its budget.
    """

    name: ClassVar[str] = "unstructured"

    def fixed_sparsity(self) -> float | None:
        """Return None: any target will do."""
        return None

    def check(self, shape: tuple[int, int]) -> None:
        """Accept every shape."""

    def removed(
        self, scores: Float[Tensor, "out in"], sparsity: float, group: ComparisonGroup
    ) -> Bool[Tensor, "out in"]:
        """Return True where a weight is removed; weights that are zero already are scored below zero."""
        groups = _grouped(scores, group)
        return lowest(groups, _level((groups < 0).sum(dim=1), groups.shape[1], sparsity)).view(scores.shape)

    def planned(self, zeros: Bool[Tensor, "out in"], sparsity: float, group: ComparisonGroup) -> int:
        """Return the zeros to find: weights that were zero count, and none of them comes back."""
        groups = _grouped(zeros, group)
        before = groups.sum(dim=1)
        return int(before.clamp(min=_level(before, groups.shape[1], sparsity)).sum())


def _level(zeros: Int[Tensor, " groups"], size: int, sparsity: float) -> int:
    """Return the largest count up to `floor(s · size)` with which all groups together do not overspend."""
    count = count_to_remove(sparsity, size)
    budget = count * zeros.numel()
    if int(zeros.clamp(min=count).sum()) <= budget:
        return count
    affordable = bisect_right(range(count), budget, key=lambda level: int(zeros.clamp(min=level).sum()))
    return max(0, affordable - 1)


def _grouped(values: Tensor, group: ComparisonGroup) -> Tensor:
    return values if group == "row" else values.reshape(1, -1)
