"""N:M sparsity: a fixed number of weights kept in each group of consecutive inputs."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt
from jaxtyping import Int
from torch import Tensor

from mwanda.errors import ConfigurationError, SparsityError
from mwanda.patterns.base import ComparisonGroup, Quota


@dataclass(frozen=True)
class NOfM:
    """Keep the `keep` highest scores in each group of `of` consecutive inputs of a row.

    Raises:
        ConfigurationError: `keep` is not smaller than `of`.
    """

    keep: Annotated[int, Gt(0)] = 2
    of: Annotated[int, Gt(1)] = 4

    def __post_init__(self) -> None:
        if self.keep >= self.of:
            raise ConfigurationError("pattern.keep", self.keep, f"must be smaller than pattern.of={self.of}")

    @property
    def name(self) -> str:
        """The pattern's name, e.g. `2of4`."""
        return f"{self.keep}of{self.of}"

    @property
    def cell(self) -> int:
        """The size of a group."""
        return self.of

    def fixed_sparsity(self) -> float | None:
        """Return the share of each group that is pruned."""
        return 1 - self.keep / self.of

    def check(self, shape: tuple[int, int]) -> None:
        """Raise SparsityError when a row does not divide into groups."""
        if shape[1] % self.of:
            raise SparsityError(
                f"pattern={self.name}: rows of {shape[1]} inputs do not divide by {self.of}; use pattern=unstructured"
            )

    def groups(self, values: Tensor, group: ComparisonGroup) -> Tensor:
        """Return each `of` consecutive inputs of a row, whatever the criterion would compare."""
        return values.reshape(-1, self.of)

    def quota(self, zeros: Int[Tensor, " groups"], size: int, sparsity: float) -> Quota:
        """Return the fixed share of each group; a group that had more zeros than that keeps them."""
        prune_per_group = self.of - self.keep
        return Quota(prune_per_group, int(zeros.clamp(min=prune_per_group).sum()))
