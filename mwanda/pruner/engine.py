"""Prunes a model: statistics, schedule, scores and masks, in one of three orders.

- `oneshot`: one dense pass over the whole model, then everything is pruned.
- `block`: the published procedure of Wanda: statistics of a block from its dense weights on inputs that passed the
  pruned blocks before it; every block runs twice.
- `arrival`: a matrix is pruned as soon as its input over the whole calibration set is known; one pass.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import nn

from mwanda.calibration import CalibrationSet
from mwanda.criteria import Criterion
from mwanda.criteria.base import BringsSolver
from mwanda.criteria.magnitude import Magnitude
from mwanda.errors import AuditError, ConfigurationError
from mwanda.models.weights import Resident, visit
from mwanda.patterns import Pattern
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner.allocation import Allocation, allocate
from mwanda.pruner.audit import MatrixPlan, ZeroCounts, audit, check_blocks
from mwanda.pruner.method import Method
from mwanda.pruner.offloading import Activations
from mwanda.pruner.passes import Passes, PassSettings
from mwanda.pruner.pre_pass import DensePrePass
from mwanda.pruner.remover import Remover
from mwanda.pruner.runtime import Runtime
from mwanda.pruner.visitors import ByBlock, OnArrival
from mwanda.schedules import Schedule
from mwanda.schedules.uniform import Uniform
from mwanda.solvers import Solver
from mwanda.statistics import LanguageStatistics


Order = Literal["block", "arrival", "oneshot"]

DAMAGE = "damage"
"""What the checkpoint calls the signals of a schedule that looks at gradients."""

logger = logging.getLogger(__name__)


@dataclass
class PruningReport:
    """What was done to each matrix, and why.

    Args:
        order: in which it was done.
        plans: what was planned and counted, a matrix each.
        sparsities: of each block.
        signals: of the schedule, a block or a matrix each.
        blocks: their names.
        pooled: matrices of experts that saw too few tokens and were given the statistics of all experts.
        seconds: spent on each stage.
    """

    order: Order
    plans: list[MatrixPlan]
    sparsities: list[float]
    signals: list[tuple[float, ...]]
    blocks: list[str]
    pooled: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


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
        zeros = check_blocks(self.passes.blocks, self.pattern, self.method.group, sparsity, self.passes.runtime.weights)
        order = self.order if self.method.needs else "oneshot"
        if not self.method.solver.takes_scores and not isinstance(self.method.criterion, BringsSolver):
            name, unused = type(self.method.solver).__name__, type(self.method.criterion).__name__
            logger.info("solver %s finds the mask by scores of its own: criterion %s chooses nothing", name, unused)
        for_all = order == "oneshot" and bool(self.method.needs)
        dense = DensePrePass(self.passes, self.method, self.schedule, self.pattern).run(for_all=for_all)
        with seconds.on("schedule"):
            alike = self.pattern.fixed_sparsity() is not None
            allocation = allocate(self.passes.blocks, self.schedule, dense.signals, sparsity, zeros, alike=alike)
        remover = self._plan(allocation, zeros)
        pooled = dense.calibrator.pooled
        if order == "oneshot":
            self._prune_all(remover, dense.statistics)
        else:
            pooled = self._prune_while_calibrating(order, remover)
        audit(self.passes.blocks, remover.plans, self.passes.runtime.weights)
        self._check_budget(sparsity, remover.plans, sum(counts.numel() for counts in zeros.values()))
        if pooled:
            logger.info("%d matrices of experts saw too few tokens and share statistics", len(pooled))
        stages = seconds.by_stage
        stages["calibrate"] = perf_counter() - start - stages["schedule"] - stages["prune"]
        names = [block.name for block in self.passes.blocks]
        plans = list(remover.planned.values())  # in the order of the model, also when resumed
        return PruningReport(order, plans, allocation.blocks, dense.signals, names, pooled, stages)

    def _check_budget(self, sparsity: float, plans: Sequence[MatrixPlan], groups: int) -> None:
        """Hold what was counted against what was asked for: one weight per comparison group is lost to rounding down.

        Raises:
            AuditError: it is further away.
        """
        found, size = sum(plan.zeros for plan in plans), sum(block.size for block in self.passes.blocks)
        if self.pattern.fixed_sparsity() is not None:
            if found > sparsity * size:  # N:M leaves no way to make up for a cell with more zeros elsewhere
                logger.warning("cells of %s held more zeros than that: %.4f is zero", self.pattern.name, found / size)
        elif abs(found - sparsity * size) > groups:
            raise AuditError(f"{found} of {size} weights are zero where sparsity={sparsity} was asked for")

    def _prune_while_calibrating(self, order: Order, remover: Remover) -> list[str]:
        """Prune in the order `block` or `arrival`; return the experts that share statistics."""
        kind = ByBlock if order == "block" else OnArrival
        record = self.passes.runtime.checkpoint is not None and isinstance(self.passes.runtime.weights, Resident)
        visitor = kind(self.passes.calibrator(self.method.needs), remover, record)
        self.passes.walk(visitor, "calibrate and prune", 1.0)
        return visitor.calibrator.pooled

    def _prune_all(self, remover: Remover, statistics: Mapping[str, LanguageStatistics]) -> None:
        blocks = self.passes.runtime.progress.track(self.passes.blocks, "prune", unit="blocks")
        for block in visit(self.passes.runtime.weights, blocks):
            with self.passes.seconds.on("prune"):
                for matrix in block.matrices:
                    seen = statistics.get(matrix.name)
                    remover.remove(matrix, None if seen is None else seen.to(matrix.weight.device))
                self.passes.runtime.weights.keep(block)

    def _plan(self, allocation: Allocation, zeros: ZeroCounts) -> Remover:
        """Decide how much goes of each matrix, before any is touched."""
        quotas, planned = {}, {}
        for block in self.passes.blocks:
            for matrix in block.matrices:
                counts, target = zeros[matrix.name], allocation.matrices[matrix.name]
                size = matrix.weight.numel() // counts.numel()
                quota = self.pattern.quota(counts, size, target)
                before = int(counts.sum())
                quotas[matrix.name] = quota
                planned[matrix.name] = MatrixPlan(matrix.name, matrix.shape, block.index, target, before, quota.planned)
        return Remover(self.method, self.pattern, quotas, planned)


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


def check_request(sparsity: float, pattern: Pattern, schedule: Schedule) -> None:
    """Refuse what can be refused before a model is loaded.

    Raises:
        ConfigurationError: the target is not in [0, 1), or the pattern allows another one only.
    """
    if not 0 <= sparsity < 1:
        raise ConfigurationError("sparsity", sparsity, "must be at least 0 and below 1")
    fixed = pattern.fixed_sparsity()
    if fixed is not None and abs(sparsity - fixed) > 1e-12:
        raise ConfigurationError("sparsity", sparsity, f"pattern={pattern.name} always removes {fixed:g}", [fixed])
    if fixed is not None and not isinstance(schedule, Uniform):
        raise ConfigurationError(
            "schedule",
            type(schedule).__name__.lower(),
            f"pattern={pattern.name} is the same in all matrices",
            ["uniform"],
        )
