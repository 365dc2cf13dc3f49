"""What a solver is, and what it is given."""

from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mwanda.kernels.lowest import lowest
from mwanda.patterns.base import ComparisonGroup
from mwanda.solvers.gram import Shared
from mwanda.statistics import LanguageStatistics, Needs


Match = Literal["layer", "dense"]
"""Whose outputs new weights are fitted to: those of the matrix's own weights on the inputs that it has behind matrices
that are pruned already; or those that it has in the dense model (asymmetric reconstruction, as in GPTAQ, Li et al.,
ICML 2025), which also makes up for what the matrices before it have lost."""


@dataclass(frozen=True)
class Budget:
    """How many weights of a matrix are pruned, and which of them compete for that.

    Args:
        planned: zeros of the whole matrix afterwards, those that were there before included.
        prune_per_group: weights pruned in each comparison group; a group that held more zeros than that keeps them.
        cell: consecutive inputs of a row that are one comparison group (N:M), or None.
        group: what a comparison group is when `cell` is None.
        by_row: weights pruned in each row, where rows differ.
    """

    planned: int
    prune_per_group: int
    cell: int | None = None
    group: ComparisonGroup = "row"
    by_row: Int[Tensor, " out"] | None = None

    @property
    def counts(self) -> int | Int[Tensor, " out"]:
        """How many weights are pruned in all groups, or in each row."""
        return self.prune_per_group if self.by_row is None else self.by_row

    def groups(self, values: Tensor) -> Tensor:
        """Return a matrix (out × in) as comparison groups (groups × size)."""
        if self.cell is not None:
            return values.reshape(-1, self.cell)
        return values if self.group == "row" else values.reshape(1, -1)


@dataclass(frozen=True)
class Layer:
    """A linear layer that is to be pruned: its weight matrix, statistics and budget.

    Args:
        weight: as it is; its zeros stay zero, and count.
        statistics: of its inputs, as the solver and the criterion need them.
        budget: how many weights are pruned.
        scores: the criterion's, non-negative; None for a solver that takes none.
        shared: what solving for the matrix before has made of its inputs.
    """

    weight: Float[Tensor, "out in"]
    statistics: LanguageStatistics | None
    budget: Budget
    scores: Float[Tensor, "out in"] | None = None
    shared: Shared = field(default_factory=Shared)

    def lowest_scores(self) -> Bool[Tensor, "out in"]:
        """Return True for the weights of the lowest scores in each group, and for all that are zero already."""
        assert self.scores is not None
        return prune_lowest(self.scores, self.weight == 0, self.budget, self.budget.counts)


@runtime_checkable
class Solver(Protocol):
    """Finds which weights of a matrix are pruned, and for some solvers what the others become."""

    @property
    def needs(self) -> Needs:
        """What the solver itself has to know of the calibration inputs."""
        ...

    @property
    def takes_scores(self) -> bool:
        """Whether it starts from a criterion's scores; otherwise the criterion has no part in the mask."""
        ...

    @property
    def group(self) -> ComparisonGroup | None:
        """The comparison group of a solver with scores of its own; None for that of the criterion."""
        ...


@runtime_checkable
class MaskSolver(Solver, Protocol):
    """A solver that leaves the kept weights as they are."""

    def select(self, layer: Layer) -> Bool[Tensor, "out in"]:
        """Return True where a weight is zero afterwards."""
        ...


@runtime_checkable
class WeightSolver(Solver, Protocol):
    """A solver that also changes the weights that it keeps, to make up for those that are pruned."""

    def solve(self, layer: Layer) -> Float[Tensor, "out in"]:
        """Return the new weights in float32, with exactly `budget.planned` zeros."""
        ...


def prune_lowest(
    scores: Float[Tensor, "out in"],
    zeros: Bool[Tensor, "out in"],
    budget: Budget,
    counts: int | Int[Tensor, " out"],
) -> Bool[Tensor, "out in"]:
    """Return True for so many of the lowest scores of each group; `zeros` come first, and are always among them."""
    chosen = lowest(budget.groups(scores.masked_fill(zeros, -1)), counts)
    return chosen.view(scores.shape) | zeros


def without_further_zeros(weight: Float[Tensor, "out in"], pruned: Bool[Tensor, "out in"]) -> Float[Tensor, "out in"]:
    """Return new weights in which no kept one is exactly zero: it would be counted among those that are pruned."""
    return weight.masked_fill_((weight == 0) & ~pruned, torch.finfo(weight.dtype).tiny)
