"""Prunes a model: statistics, schedule, scores and masks, in one of three orders.

- `oneshot`: one dense pass over the whole model, then everything is pruned.
- `block`: the published procedure of Wanda: statistics of a block from its dense weights on inputs that passed the
  pruned blocks before it; every block runs twice.
- `arrival`: a matrix is pruned as soon as its input over the whole calibration set is known; one pass.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import nn

from mwanda.calibration import CalibrationSet
from mwanda.criteria import Criterion
from mwanda.criteria.magnitude import Magnitude
from mwanda.errors import ConfigurationError
from mwanda.models.weights import Resident, visit
from mwanda.patterns import Pattern
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner.allocation import Allocation, allocate, over_rows
from mwanda.pruner.audit import MatrixPlan, ZeroCounts, audit, check_blocks, check_budget
from mwanda.pruner.beside_dense import BesideDense
from mwanda.pruner.method import Method
from mwanda.pruner.offloading import Activations
from mwanda.pruner.passes import Passes, PassSettings
from mwanda.pruner.pre_pass import DensePrePass
from mwanda.pruner.remover import Remover
from mwanda.pruner.report import Order as Order
from mwanda.pruner.report import PruningReport as PruningReport
from mwanda.pruner.requests import check_request
from mwanda.pruner.runtime import Runtime
from mwanda.pruner.visitors import ByBlock, OnArrival
from mwanda.schedules import Schedule
from mwanda.schedules.base import LooksAtGradients
from mwanda.solvers import Solver
from mwanda.statistics import LanguageStatistics, Needs


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pruner:
    """Prunes in place.

    Args:
        order: see the module.
        batch_size: sequences in a forward pass; changes speed and memory, not the result.
        expert_tokens: an expert of a mixture that saw fewer calibration tokens is scored with the statistics of all
            experts of its block.
        activations: where hidden states wait between blocks: on the `device`, in `ram`, or on `disk`.
        checkpoint: whether a run writes down each finished block, so that it can be resumed.

    Raises:
        ConfigurationError: the order needs its activations in memory.
    """

    order: Order = "arrival"
    batch_size: Annotated[int, Gt(0)] = 8
    expert_tokens: Annotated[int, Ge(0)] = 32
    activations: Activations = "device"
    checkpoint: bool = True

    def __post_init__(self) -> None:
        if self.order == "arrival" and self.activations != "device":
            raise ConfigurationError(
                "pruner.activations",
                self.activations,
                "order=arrival holds the inputs of a matrix for all batches; use pruner.order=block or oneshot",
                ["device"],
            )

    @torch.no_grad()
    def prune(
        self,
        model: nn.Module,
        calibration: CalibrationSet,
        criterion: Criterion,
        schedule: Schedule,
        pattern: Pattern,
        sparsity: float,
        runtime: Runtime | None = None,
        solver: Solver | None = None,
    ) -> PruningReport:
        """Zero the weights that `solver` chooses by `criterion`'s scores, and audit the outcome.

        Args:
            model: in evaluation mode; its weights are changed.
            calibration: what its inputs are taken from.
            criterion: scores weights.
            schedule: spreads sparsity over blocks or matrices.
            pattern: which weights compete.
            sparsity: over all prunable weights.
            runtime: what it is carried out with; None for one process, in memory, that writes nothing.
            solver: makes a mask, or new weights, of the scores; None prunes the lowest, or as the criterion says.

        Raises:
            SparsityError: the target or the pattern does not suit the model; nothing has been changed then.
            CalibrationError: the calibration inputs are not finite, do not reach a matrix, or are fewer sequences than
                there are processes.
            AuditError: the outcome is not what was planned.
        """
        passes = Passes.of(model, calibration, self.of_passes, runtime)
        return _Task(passes, Method.of(criterion, solver), schedule, pattern, self.order).run(sparsity)

    @property
    def of_passes(self) -> PassSettings:
        """The settings that a pass through the model depends on."""
        return PassSettings(self.batch_size, self.expert_tokens, self.activations)


@dataclass
class _Task:
    passes: Passes
    method: Method
    schedule: Schedule
    pattern: Pattern
    order: Order

    def run(self, sparsity: float) -> PruningReport:
        start, seconds = perf_counter(), self.passes.seconds
        check_request(sparsity, self.pattern, self.schedule)
        self.method.check_order(self.order)
        self.method.check_share(self.passes.calibration.weights.moment_share)
        self.method.check_experts(self.passes.blocks)
        self.method.tell()
        zeros = check_blocks(self.passes.blocks, self.pattern, self.method.group, sparsity, self.passes.runtime.weights)
        order = self.order if self.method.needs else "oneshot"
        for_all = order == "oneshot" and bool(self.method.needs)
        dense = DensePrePass(self.passes, self.method, self.schedule, self.pattern, zeros).run(for_all=for_all)
        with seconds.on("schedule"):
            alike = self.pattern.fixed_sparsity() is not None
            blocks, signals = self.passes.blocks, dense.signals
            allocation = allocate(blocks, self.schedule, signals, sparsity, zeros, alike=alike)
            if dense.rows and isinstance(self.schedule, LooksAtGradients):
                allocation = over_rows(allocation, self.schedule, signals, dense.rows, zeros, blocks)
        remover, fuller = self._plan(allocation, zeros)
        if fuller:  # N:M leaves no way to make up for them elsewhere
            logger.info("%d cells of %s held more zeros than it removes, and keep them", fuller, self.pattern.name)
        pooled = dense.calibrator.pooled
        if order == "oneshot":
            self._prune_all(remover, dense.statistics)
        else:
            pooled = self._prune_while_calibrating(order, remover)
        audit(self.passes.blocks, remover.plans, self.passes.runtime.weights)
        if not alike:
            check_budget(remover.plans, sparsity, sum(counts.numel() for counts in zeros.values()))
        if pooled:
            logger.info("%d matrices of experts saw too few tokens and share statistics", len(pooled))
        stages = seconds.by_stage
        stages["calibrate"] = perf_counter() - start - stages["schedule"] - stages["prune"]
        names = [block.name for block in self.passes.blocks]
        plans = list(remover.planned.values())  # in the order of the model, also when resumed
        return PruningReport(order, plans, allocation.blocks, dense.signals, names, pooled, stages, fuller)

    def _prune_while_calibrating(self, order: Order, remover: Remover) -> list[str]:
        """Prune in the order `block` or `arrival`; return the experts that share statistics."""
        beside = Needs.CROSS_MOMENTS in self.method.needs
        kind = OnArrival if order == "arrival" else BesideDense if beside else ByBlock
        record = self.passes.runtime.checkpoint is not None and isinstance(self.passes.runtime.weights, Resident)
        visitor = kind(self.passes.calibrator(self.method.needs), remover, record)
        with visitor.hooks:
            self.passes.walk(visitor, "calibrate and prune", 1.0, copies=2 if beside else 1)
        return visitor.calibrator.pooled

    def _prune_all(self, remover: Remover, statistics: Mapping[str, LanguageStatistics]) -> None:
        blocks = self.passes.runtime.progress.track(self.passes.blocks, "prune", unit="blocks")
        for block in visit(self.passes.runtime.weights, blocks):
            with self.passes.seconds.on("prune", block.matrices[0].weight.device):
                for matrix in block.matrices:
                    seen = statistics.get(matrix.name)
                    remover.remove(matrix, None if seen is None else seen.to(matrix.weight.device))
                self.passes.runtime.weights.keep(block)

    def _plan(self, allocation: Allocation, zeros: ZeroCounts) -> tuple[Remover, int]:
        """Decide how many weights of each matrix are pruned, before any is; count cells that keep more zeros."""
        quotas, planned, fuller = {}, {}, 0
        for block in self.passes.blocks:
            for matrix in block.matrices:
                counts, target = zeros[matrix.name], allocation.matrices[matrix.name]
                size = matrix.weight.numel() // counts.numel()
                quota = self.pattern.quota(counts, size, target)
                if matrix.name in allocation.rows:
                    quota = quota.over_rows(allocation.rows[matrix.name], size, counts)
                before, quotas[matrix.name] = int(counts.sum()), quota
                fuller += int((counts > quota.prune_per_group).sum()) if self.pattern.cell else 0
                planned[matrix.name] = MatrixPlan(matrix.name, matrix.shape, block.index, target, before, quota.planned)
        return Remover(self.method, self.pattern, quotas, planned), fuller


@torch.no_grad()
def dense_pre_pass(
    model: nn.Module,
    calibration: CalibrationSet,
    schedule: Schedule,
    settings: Pruner,
    runtime: Runtime | None = None,
) -> list[tuple[float, ...]]:
    """Return the signals of a schedule, a unit each, from its fraction of the calibration set."""
    passes = Passes.of(model, calibration, settings.of_passes, runtime)
    return DensePrePass(passes, Method.of(Magnitude()), schedule, Unstructured()).run(for_all=False).signals
