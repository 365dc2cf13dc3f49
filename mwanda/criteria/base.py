"""The interface of a pruning criterion."""

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from mwanda.patterns.base import ComparisonGroup
from mwanda.solvers import Solver
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
class BringsSolver(Criterion, Protocol):
    """A criterion of a method that also says what becomes of its scores; the plain solver gives way to that."""

    @property
    def solver(self) -> Solver:
        """The solver of the method, with its settings."""
        ...
