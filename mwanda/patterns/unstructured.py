"""Unstructured sparsity: any weight of a comparison group may go."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from mwanda.criteria.base import ComparisonGroup
from mwanda.patterns.base import count_to_remove, lowest


@dataclass(frozen=True)
class Unstructured:
    """Remove `floor(s · size)` weights of each comparison group: an output row, or the whole matrix."""

    name: ClassVar[str] = "unstructured"

    def fixed_sparsity(self) -> float | None:
        """Return None: any target will do."""
        return None

    def check(self, shape: tuple[int, int]) -> None:
        """Accept every shape."""

    def removed(
        self, scores: Float[Tensor, "out in"], sparsity: float, group: ComparisonGroup
    ) -> Bool[Tensor, "out in"]:
        """Return True where a weight is removed."""
        groups = _grouped(scores, group)
        return lowest(groups, count_to_remove(sparsity, groups.shape[1])).view(scores.shape)

    def planned(
        self, zeros: Bool[Tensor, "out in"], sparsity: float, group: ComparisonGroup
    ) -> int:
        """Return the zeros to find: weights that were zero count, and none of them comes back."""
        groups = _grouped(zeros, group)
        return int(groups.sum(dim=1).clamp(min=count_to_remove(sparsity, groups.shape[1])).sum())


def _grouped(values: Tensor, group: ComparisonGroup) -> Tensor:
    return values if group == "row" else values.reshape(1, -1)
