"""What a criterion is."""

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from mwanda.patterns.base import ComparisonGroup
from mwanda.statistics import LanguageStatistics, Needs


@runtime_checkable
class Criterion(Protocol):
    """Scores every weight of a matrix; within a comparison group the lowest scores are pruned."""

    @property
    def needs(self) -> Needs:
        """What `score` has to know of the calibration inputs."""
        ...

    @property
    def group(self) -> ComparisonGroup:
        """Weights that compete with each other under the unstructured pattern."""
        ...

    def score(self, weight: Float[Tensor, "out in"], statistics: LanguageStatistics | None) -> Float[Tensor, "out in"]:
        """Return non-negative scores in float32."""
        ...


class ColumnWeighted(ABC):
    """A criterion whose score is `|W_ij|` times a number for each input, so that rows can be pruned one by one."""

    @abstractmethod
    def column_weights(self, statistics: LanguageStatistics) -> Float[Tensor, " in"]:
        """Return the number for each input, in float32."""

    def score(self, weight: Float[Tensor, "out in"], statistics: LanguageStatistics | None) -> Float[Tensor, "out in"]:
        """Return the scores."""
        assert statistics is not None
        return weight.abs().float().mul_(self.column_weights(statistics))


@runtime_checkable
class Reconstruction(Criterion, Protocol):
    """A criterion that also changes the weights it keeps, to make up for those it removes."""

    def reconstruct(
        self,
        weight: Float[Tensor, "out in"],
        statistics: LanguageStatistics,
        planned: int,
        cell: int | None,
        prune_per_group: int,
    ) -> Float[Tensor, "out in"]:
        """Return the new weights in float32.

        Args:
            weight: what is there; its zeros stay zero.
            statistics: of its inputs, as `needs` says.
            planned: zeros that the result holds, when `cell` is None.
            cell: inputs of a row that are compared with each other (N:M), or None for any.
            prune_per_group: weights to remove in each cell.
        """
        ...
