"""What a criterion is."""

from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from mwanda.statistics import LanguageStatistics


ComparisonGroup = Literal["row", "matrix"]


@runtime_checkable
class Criterion(Protocol):
    """Scores every weight of a matrix; within a comparison group the lowest scores are pruned."""

    @property
    def needs_statistics(self) -> bool:
        """Whether `score` looks at the calibration statistics."""
        ...

    @property
    def group(self) -> ComparisonGroup:
        """Weights that compete with each other under the unstructured pattern."""
        ...

    def score(self, weight: Float[Tensor, "out in"], statistics: LanguageStatistics | None) -> Float[Tensor, "out in"]:
        """Return non-negative scores in float32."""
        ...
