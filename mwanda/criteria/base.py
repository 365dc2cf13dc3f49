"""What a criterion is."""

from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from mwanda.statistics import LanguageStatistics, Needs


ComparisonGroup = Literal["row", "matrix"]


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


@runtime_checkable
class Reconstruction(Criterion, Protocol):
    """A criterion that also changes the weights it keeps, to make up for those it removes."""

    def reconstruct(
        self,
        weight: Float[Tensor, "out in"],
        statistics: LanguageStatistics,
        planned: int,
        cell: int | None,
        level: int,
    ) -> Float[Tensor, "out in"]:
        """Return the new weights in float32.

        Args:
            weight: what is there; its zeros stay zero.
            statistics: of its inputs, as `needs` says.
            planned: zeros that the result holds, when `cell` is None.
            cell: inputs of a row that are compared with each other (N:M), or None for any.
            level: weights to remove in each cell.
        """
        ...
