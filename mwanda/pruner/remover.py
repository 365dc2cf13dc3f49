"""Removes the weights of one matrix, and remembers that it did."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mwanda.criteria.base import ColumnWeighted
from mwanda.export.bits import pack, unpack
from mwanda.kernels.fused import zero_lowest
from mwanda.kernels.lowest import AT_ONCE, CACHED, SCRATCH
from mwanda.models import Matrix
from mwanda.patterns import Pattern, Quota, removed
from mwanda.pruner.audit import MatrixPlan
from mwanda.pruner.method import Method
from mwanda.solvers import Budget, Layer, MaskSolver, WeightSolver
from mwanda.solvers.gram import Shared
from mwanda.solvers.threshold import Threshold
from mwanda.statistics import LanguageStatistics
from mwanda.system.device import sent


WORTH_SHARING = 1 << 19
"""Weights of a matrix above which handing parts of it to several threads costs less than it saves."""


@dataclass
class Remover:
    """Zeroes weights in place, after a plan that was made for every matrix beforehand.

    Args:
        method: scores weights, and makes a mask or new weights of the scores.
        pattern: says which of them compete.
        quotas: how many weights of each matrix are removed.
        planned: what is expected of each matrix.
        plans: those of the matrices that have been pruned.
    """

    method: Method
    pattern: Pattern
    quotas: Mapping[str, Quota]
    planned: Mapping[str, MatrixPlan]
    plans: list[MatrixPlan] = field(default_factory=list)
    _shared: Shared = field(default_factory=Shared)
    _last: tuple[LanguageStatistics | None, Float[Tensor, " in"]] | None = None

    def __post_init__(self) -> None:
        criterion: Any = self.method.criterion
        own: object = type(criterion).score
        by_columns = isinstance(criterion, ColumnWeighted) and own is ColumnWeighted.score
        plain = isinstance(self.method.solver, Threshold)
        self._weighted: ColumnWeighted | None = criterion if plain and by_columns and criterion.group == "row" else None

    def remove(self, matrix: Matrix, statistics: LanguageStatistics | None) -> None:
        """Prune one matrix in place."""
        weight, quota, solver = matrix.weight, self.quotas[matrix.name], self.method.solver
        if self._weighted is not None and quota.by_row is None:
            assert statistics is not None
            columns = self._column_weights(self._weighted, statistics)
            self._remove_by_rows(weight, columns, quota.prune_per_group, self.planned[matrix.name].zeros_before > 0)
        else:
            rows = None if quota.by_row is None else sent(quota.by_row, weight.device)
            budget = Budget(quota.planned, quota.prune_per_group, self.pattern.cell, self.method.group, rows)
            scores = self.method.criterion.score(weight, statistics) if solver.takes_scores else None
            layer = Layer(weight, statistics, budget, scores, self._shared)
            if isinstance(solver, WeightSolver):
                weight.copy_(cast(solver.solve(layer), weight.dtype))
            else:
                assert isinstance(solver, MaskSolver)
                weight.masked_fill_(solver.select(layer), 0)
        self.plans.append(self.planned[matrix.name])

    def _column_weights(self, criterion: ColumnWeighted, statistics: LanguageStatistics) -> Float[Tensor, " in"]:
        """Return the number for each input, made once for matrices that share their input."""
        if self._last is None or self._last[0] is not statistics:
            self._last = (statistics, criterion.column_weights(statistics))
        return self._last[1]

    def _remove_by_rows(
        self, weight: Float[Tensor, "out in"], columns: Float[Tensor, " in"], prune_per_group: int, zeros: bool
    ) -> None:
        """Do the same a few rows at a time: on the CPU these stay in its cache, and nothing of full size is made."""
        if prune_per_group == 0:
            return
        if weight.device.type == "cpu" and weight.dtype == torch.float32:
            threads = min(torch.get_num_threads(), weight.shape[0])
            parts = weight.chunk(threads) if weight.numel() > WORTH_SHARING else (weight,)
            work = partial(self._remove_in_cache, columns=columns, prune_per_group=prune_per_group, zeros=zeros)
            list(_threads(threads).map(work, parts)) if len(parts) > 1 else work(weight)
            return
        if self.pattern.cell is None and zero_lowest(weight, columns, prune_per_group):
            return
        for part in weight.split(max(1, AT_ONCE // weight.shape[1])):
            scores = part.abs().float().mul_(columns)
            if zeros:
                scores.masked_fill_(part == 0, -1)
            part.masked_fill_(removed(self.pattern, scores, prune_per_group, "row"), 0)

    def _remove_in_cache(
        self, weight: Float[Tensor, "out in"], columns: Float[Tensor, " in"], prune_per_group: int, zeros: bool
    ) -> None:
        """Use NumPy, whose comparisons are faster on the CPU, and no masked write, slow where the mask is random."""
        for part in weight.split(max(1, CACHED // weight.shape[1])):
            values = part.numpy()
            scores = np.abs(values, out=SCRATCH.array("scores", values.shape, np.float32))
            scores *= columns.numpy()
            if zeros:
                scores -= values == 0  # their score was zero
            gone = removed(self.pattern, torch.from_numpy(scores), prune_per_group, "row").numpy()
            kept = SCRATCH.array("kept", values.shape, np.int32)
            np.subtract(gone.view(np.int8), 1, out=kept)
            bits = values.view(np.int32)
            bits &= kept

    def record(self, matrix: Matrix) -> Tensor:
        """Return what is needed to do the same again: packed bits, or the weights where a solver changes them."""
        if self.method.changes_weights:
            return matrix.weight.contiguous()
        return pack(matrix.weight != 0)

    def repeat(self, matrix: Matrix, record: Tensor | None) -> None:
        """Do what an earlier run did; without a record the weights are pruned already."""
        weight = matrix.weight
        if record is not None and record.dtype == torch.uint8:
            weight.masked_fill_(~unpack(record, matrix.shape[1]).to(weight.device), 0)
        elif record is not None:
            weight.copy_(record)
        self.plans.append(self.planned[matrix.name])


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="remover")


def cast(values: Float[Tensor, "out in"], dtype: torch.dtype) -> Tensor:
    """Return `values` in `dtype`, where what is not zero becomes the smallest number of its sign instead of zero."""
    found, limits = values.to(dtype), torch.finfo(dtype)
    # Every device knows the subnormal numbers of float16; those of the wider ones, below 1e-38, some take for zero.
    least = limits.tiny * limits.eps if dtype == torch.float16 else limits.tiny
    return torch.where((found == 0) & (values != 0), values.sign().to(dtype) * least, found)
