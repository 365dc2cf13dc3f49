"""Prunes a model: statistics, schedule, scores and masks, in one of three orders.

- `oneshot`: one dense pass over the whole model, then everything is pruned.
- `block`: the published procedure of Wanda: statistics of a block from its dense weights on inputs that passed the
  pruned blocks before it; every block runs twice.
- `arrival`: a matrix is pruned as soon as its input over the whole calibration set is known; one pass.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt
from torch import nn

from mwanda.calibration import Batch, CalibrationSet
from mwanda.criteria import Criterion
from mwanda.criteria.base import BringsSolver
from mwanda.criteria.magnitude import Magnitude
from mwanda.errors import AuditError, ConfigurationError
from mwanda.models import Block, blocks_of
from mwanda.models.forward import forward, input_device
from mwanda.models.weights import Resident, visit
from mwanda.patterns import Pattern
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner.allocation import Allocation, allocate, units_of
from mwanda.pruner.audit import MatrixPlan, ZeroCounts, audit, check_blocks
from mwanda.pruner.batches import batches_of, sequences_per_batch
from mwanda.pruner.damage import Sample, measure_damage
from mwanda.pruner.method import Method
from mwanda.pruner.offloading import Activations, offloading_of
from mwanda.pruner.remover import Remover
from mwanda.pruner.runtime import Runtime
from mwanda.pruner.visitors import ByBlock, Calibrator, Dense, OnArrival, Seconds, deep, flat
from mwanda.pruner.walk import Visitor, Walk
from mwanda.schedules import BlockMatrix, Schedule
from mwanda.schedules.base import LooksAtGradients
from mwanda.schedules.uniform import Uniform
from mwanda.solvers import Solver
from mwanda.statistics import LanguageStatistics, Needs


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
        task = _Task(
            model,
            blocks_of(model),
            calibration,
            Method.of(criterion, solver),
            schedule,
            pattern,
            self,
            runtime or Runtime(),
        )
        return task.run(sparsity)


@dataclass
class _Task:
    model: nn.Module
    blocks: list[Block]
    calibration: CalibrationSet
    method: Method
    schedule: Schedule
    pattern: Pattern
    settings: Pruner
    runtime: Runtime
    seconds: Seconds = field(default_factory=Seconds)

    def run(self, sparsity: float) -> PruningReport:
        start = perf_counter()
        check_request(sparsity, self.pattern, self.schedule)
        zeros = check_blocks(self.blocks, self.pattern, self.method.group, sparsity, self.runtime.weights)
        order = self.settings.order if self.method.needs else "oneshot"
        if not self.method.solver.takes_scores and not isinstance(self.method.criterion, BringsSolver):
            name, unused = type(self.method.solver).__name__, type(self.method.criterion).__name__
            logger.info("solver %s finds the mask by scores of its own: criterion %s chooses nothing", name, unused)
        dense = self._dense_pre_pass(order)
        with self.seconds.on("schedule"):
            alike = self.pattern.fixed_sparsity() is not None
            allocation = allocate(self.blocks, self.schedule, dense.signals, sparsity, zeros, alike=alike)
        remover = self._plan(allocation, zeros)
        pooled = dense.calibrator.pooled
        if order == "oneshot":
            self._prune_all(remover, dense.statistics)
        else:
            pooled = self._prune_while_calibrating(order, remover)
        audit(self.blocks, remover.plans, self.runtime.weights)
        self._check_budget(sparsity, remover.plans, sum(counts.numel() for counts in zeros.values()))
        if pooled:
            logger.info("%d matrices of experts saw too few tokens and share statistics", len(pooled))
        seconds = self.seconds.by_stage
        seconds["calibrate"] = perf_counter() - start - seconds["schedule"] - seconds["prune"]
        names = [block.name for block in self.blocks]
        plans = list(remover.planned.values())  # in the order of the model, also when resumed
        return PruningReport(order, plans, allocation.blocks, dense.signals, names, pooled, seconds)

    def _check_budget(self, sparsity: float, plans: Sequence[MatrixPlan], groups: int) -> None:
        """Hold what was counted against what was asked for: one weight per comparison group is lost to rounding down.

        Raises:
            AuditError: it is further away.
        """
        found, size = sum(plan.zeros for plan in plans), sum(block.size for block in self.blocks)
        if self.pattern.fixed_sparsity() is not None:
            if found > sparsity * size:  # N:M leaves no way to make up for a cell with more zeros elsewhere
                logger.warning("cells of %s held more zeros than that: %.4f is zero", self.pattern.name, found / size)
        elif abs(found - sparsity * size) > groups:
            raise AuditError(f"{found} of {size} weights are zero where sparsity={sparsity} was asked for")

    def _dense_pre_pass(self, order: Order) -> Dense:
        """Return dense statistics and signals of the whole model, when anything is decided from them."""
        by_criterion = order == "oneshot" and bool(self.method.needs)
        needs = self.schedule.needs | (self.method.needs if by_criterion else Needs.NOTHING)
        visitor = Dense(self._calibrator(needs), self.schedule, keep_statistics=by_criterion)
        if isinstance(self.schedule, LooksAtGradients):
            visitor.signals = self._look_at_gradients(self.schedule)
        if (needs or self.schedule.looks_at == "weights") and not self._take_from_artifacts(visitor):
            if needs:
                with visitor.hooks:
                    self._walk(visitor, "calibrate", 1.0 if by_criterion else self.schedule.signal_fraction)
            else:
                self._look_at_weights(visitor, {})
            self._keep_as_artifact(visitor)
        if any(not torch.isfinite(torch.tensor(signal)).all() for signal in visitor.signals):
            logger.warning("a signal of the schedule is undefined (one language?): it spreads nothing, as if uniform")
        return visitor

    def _take_from_artifacts(self, visitor: Dense) -> bool:
        """Give the visitor what another run has found, if there is any; return whether there was."""
        found = (
            self.runtime.artifacts.find(*self._artifact_key(visitor)) if self.runtime.artifacts is not None else None
        )
        if found is None:
            return False
        if visitor.keep_statistics:
            visitor.calibrator.pooled = list(found.metadata["pooled"])
            self._look_at_weights(visitor, deep(found.tensors, self.calibration.weights))
        else:
            visitor.signals = [tuple(signal) for signal in found.tensors["signals"].tolist()]
        return True

    def _look_at_gradients(self, schedule: LooksAtGradients) -> list[tuple[float, ...]]:
        """Return the signals of all units, measured by this run, an interrupted attempt of it, or another one."""
        checkpoint = self.runtime.checkpoint
        noted = checkpoint.noted(DAMAGE) if checkpoint is not None else None
        if noted is None:
            signals = self._signals_of_damage(schedule)
            noted = json.dumps(signals)
            if checkpoint is not None:
                checkpoint.note(DAMAGE, noted)
        return [tuple(signal) for signal in json.loads(noted)]

    def _signals_of_damage(self, schedule: LooksAtGradients) -> list[Sequence[float]]:
        settings = self.settings
        curves = measure_damage(
            self.model,
            self.blocks,
            self.calibration,
            self.method.criterion,
            self.pattern,
            Sample(schedule.levels, schedule.signal_fraction, schedule.labels, schedule.draws, schedule.seed),
            settings.batch_size,
            settings.expert_tokens,
            settings.activations,
            self.runtime,
            self.seconds,
        ).curves()
        return [
            schedule.signal([BlockMatrix(matrix.weight, damage=curves[matrix.name]) for matrix in unit])
            for block in self.blocks
            for unit in units_of(block, schedule.level)
        ]

    def _look_at_weights(self, visitor: Dense, statistics: Mapping[str, LanguageStatistics]) -> None:
        """Visit all blocks without a forward pass, with statistics that are there already."""
        for block in visit(self.runtime.weights, self.runtime.progress.track(self.blocks, "calibrate", unit="blocks")):
            known = {m.name: statistics[m.name].to(m.weight.device) for m in block.matrices if m.name in statistics}
            visitor.take(block, known)

    def _keep_as_artifact(self, visitor: Dense) -> None:
        if self.runtime.artifacts is None:
            return
        tensors = (
            flat(visitor.statistics)
            if visitor.keep_statistics
            else {"signals": torch.tensor(visitor.signals, dtype=torch.float64)}
        )
        self.runtime.artifacts.keep(*self._artifact_key(visitor), tensors, {"pooled": visitor.calibrator.pooled})

    def _artifact_key(self, visitor: Dense) -> tuple[str, dict[str, Any]]:
        """Return kind and key of what the visitor is to find."""
        settings = self.settings
        key: dict[str, Any] = {
            "needs": str(visitor.calibrator.needs),
            "batch_size": settings.batch_size,
            "expert_tokens": settings.expert_tokens,
        }
        if not self.calibration.weights.uniform:
            key["weights"] = repr(self.calibration.weights)
        if visitor.keep_statistics:
            return "statistics", key | {"calibration": self.calibration.fingerprint()}
        looks_at_text = self.schedule.looks_at != "weights"
        text = self.calibration.part(self.schedule.signal_fraction).fingerprint() if looks_at_text else None
        return "signals", key | {"schedule": repr(self.schedule), "calibration": text}

    def _prune_while_calibrating(self, order: Order, remover: Remover) -> list[str]:
        """Prune in the order `block` or `arrival`; return the experts that share statistics."""
        kind = ByBlock if order == "block" else OnArrival
        record = self.runtime.checkpoint is not None and isinstance(self.runtime.weights, Resident)
        visitor = kind(self._calibrator(self.method.needs), remover, record)
        self._walk(visitor, "calibrate and prune", 1.0)
        return visitor.calibrator.pooled

    def _prune_all(self, remover: Remover, statistics: Mapping[str, LanguageStatistics]) -> None:
        blocks = self.runtime.progress.track(self.blocks, "prune", unit="blocks")
        for block in visit(self.runtime.weights, blocks):
            with self.seconds.on("prune"):
                for matrix in block.matrices:
                    seen = statistics.get(matrix.name)
                    remover.remove(matrix, None if seen is None else seen.to(matrix.weight.device))
                self.runtime.weights.keep(block)

    def _calibrator(self, needs: Needs) -> Calibrator:
        return Calibrator(
            len(self.calibration.codes),
            needs,
            self.settings.expert_tokens,
            self.runtime.world,
            self.seconds,
            self.calibration.weights,
        )

    def _walk(self, visitor: Visitor, title: str, fraction: float) -> None:
        bar = iter(self.runtime.progress.track(self.blocks, title, unit="blocks"))
        with offloading_of(self.settings.activations, self.runtime.scratch) as offloading:
            walk = Walk(
                lambda batch: forward(self.model, batch.tokens),
                self.blocks,
                self._batches(fraction),
                self.runtime.weights,
                lambda: next(bar, None),
                offloading,
                self.runtime.checkpoint,
            )
            walk.run(visitor)
        next(bar, None)

    def _batches(self, fraction: float = 1.0) -> list[Batch]:
        """Return this process's calibration batches, or those of a fraction of each language's tokens."""
        chosen = self.calibration if fraction == 1 else self.calibration.part(fraction)
        world, wanted = self.runtime.world, self.settings.batch_size
        size = sequences_per_batch(chosen, self.calibration.length, wanted, world)
        return batches_of(chosen, size, world, input_device(self.model))

    def _plan(self, allocation: Allocation, zeros: ZeroCounts) -> Remover:
        """Decide how much goes of each matrix, before any is touched."""
        quotas, planned = {}, {}
        for block in self.blocks:
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
    model: nn.Module, calibration: CalibrationSet, schedule: Schedule, settings: Pruner
) -> list[tuple[float, ...]]:
    """Return the signals of a schedule, a block each, from its fraction of the calibration set."""
    task = _Task(
        model,
        blocks_of(model),
        calibration,
        Method.of(Magnitude()),
        schedule,
        Unstructured(),
        settings,
        Runtime(),
    )
    return task._dense_pre_pass(settings.order).signals


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
