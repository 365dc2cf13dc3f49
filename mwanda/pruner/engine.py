"""Prunes a model: statistics, schedule, scores and masks, in one of three orders.

- `oneshot`: one dense pass over the whole model, then everything is pruned.
- `block`: the published procedure of Wanda: statistics of a block from its dense weights on inputs that passed the
  pruned blocks before it; every block runs twice.
- `arrival`: a matrix is pruned as soon as its input over the whole calibration set is known; one pass.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Annotated, Literal

import torch
from annotated_types import Gt, Le
from torch import nn

from mwanda.calibration import Batch, CalibrationSet
from mwanda.criteria import Criterion
from mwanda.errors import CalibrationError, ConfigurationError, SparsityError
from mwanda.models import Block, Matrix, blocks_of
from mwanda.patterns import Pattern
from mwanda.progress import Progress, Silent
from mwanda.pruner.audit import MatrixPlan, audit, check_target
from mwanda.pruner.lockstep import Lockstep
from mwanda.pruner.observe import Observer
from mwanda.schedules import BlockMatrix, Schedule
from mwanda.statistics import LanguageStatistics


Order = Literal["block", "arrival", "oneshot"]
Statistics = Mapping[str, LanguageStatistics]

logger = logging.getLogger(__name__)


@dataclass
class PruningReport:
    """What was done to each matrix, and why."""

    order: Order
    plans: list[MatrixPlan]
    sparsities: list[float]
    signals: list[tuple[float, ...]]
    blocks: list[str]
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Pruner:
    """Prunes in place.

    Args:
        order: see the module.
        batch_size: sequences in a forward pass; changes speed and memory, not the result.
        signal_fraction: the share of each language's sequences that a schedule looks at before pruning starts, when
            the order is not `oneshot`.
    """

    order: Order = "arrival"
    batch_size: Annotated[int, Gt(0)] = 8
    signal_fraction: Annotated[float, Gt(0), Le(1)] = 1.0

    @torch.no_grad()
    def prune(
        self,
        model: nn.Module,
        calibration: CalibrationSet,
        criterion: Criterion,
        schedule: Schedule,
        pattern: Pattern,
        sparsity: float,
        progress: Progress | None = None,
    ) -> PruningReport:
        """Zero the weights that `criterion` scores lowest, under `schedule` and `pattern`, and audit the outcome.

        Raises:
            SparsityError: the target or the pattern does not suit the model; nothing has been changed then.
            AuditError: the outcome is not what was planned.
        """
        task = _Task(model, blocks_of(model), calibration, criterion, schedule, pattern, self, progress or Silent())
        return task.run(sparsity)


@dataclass
class _Task:
    model: nn.Module
    blocks: list[Block]
    calibration: CalibrationSet
    criterion: Criterion
    schedule: Schedule
    pattern: Pattern
    settings: Pruner
    progress: Progress
    seconds: dict[str, float] = field(default_factory=lambda: {"calibrate": 0.0, "schedule": 0.0, "prune": 0.0})
    plans: list[MatrixPlan] = field(default_factory=list)

    def run(self, sparsity: float) -> PruningReport:
        check_request(sparsity, self.pattern, self.schedule)
        zeros = check_blocks(self.blocks, self.pattern, sparsity)
        order = self.settings.order if self.criterion.needs_statistics else "oneshot"
        statistics = self._look_ahead(order)
        sparsities, signals = self._allocate(sparsity, statistics, zeros)
        targets = {matrix.name: sparsities[matrix.block] for matrix in self._matrices}
        {"oneshot": self._prune_all, "block": self._prune_by_block, "arrival": self._prune_on_arrival}[order](
            targets, statistics
        )
        audit(self._matrices, self.plans, self.pattern)
        names = [block.name for block in self.blocks]
        return PruningReport(order, self.plans, sparsities, signals, names, self.seconds)

    @property
    def _matrices(self) -> list[Matrix]:
        return [matrix for block in self.blocks for matrix in block.matrices]

    def _batches(self, fraction: float = 1.0) -> list[Batch]:
        """Return the calibration batches, or those of the first `fraction` of each language's sequences."""
        parts = tuple(part[: max(1, round(fraction * part.shape[0]))] for part in self.calibration.sequences)
        chosen = CalibrationSet(self.calibration.codes, parts, self.calibration.packing)
        return chosen.batches(self.settings.batch_size, self._matrices[0].weight.device)

    def _look_ahead(self, order: Order) -> Statistics:
        """Return dense statistics of the whole model, when anything is decided from them."""
        wanted_by_criterion = order == "oneshot" and self.criterion.needs_statistics
        if not wanted_by_criterion and not self.schedule.needs_statistics:
            return {}
        fraction = 1.0 if order == "oneshot" else self.settings.signal_fraction
        with _Stopwatch(self.seconds, "calibrate"):
            return self._observe_dense(self._batches(fraction))

    def _observe_dense(self, batches: Sequence[Batch]) -> Statistics:
        observer = Observer(self._matrices, len(self.calibration.codes))
        with observer.watching():
            for batch in self.progress.track(batches, "calibrate", unit="tokens", weight=_tokens):
                with observer.reading(batch):
                    self._forward(batch)
        _check_finite(observer.statistics)
        return observer.statistics

    def _forward(self, batch: Batch) -> None:
        """Run the decoder without its LM head, keeping no cache."""
        decoder = getattr(self.model, "base_model", self.model)
        decoder(input_ids=batch.tokens, use_cache=False)

    def _allocate(
        self, sparsity: float, statistics: Statistics, zeros: list[int]
    ) -> tuple[list[float], list[tuple[float, ...]]]:
        with _Stopwatch(self.seconds, "schedule"):
            signals: list[tuple[float, ...]] = []
            if self.schedule.needs_statistics:
                for block in self.progress.track(self.blocks, "schedule", unit="blocks"):
                    matrices = [BlockMatrix(matrix.weight, statistics[matrix.name]) for matrix in block.matrices]
                    signals.append(tuple(self.schedule.signal(matrices)))
                if any(not torch.isfinite(torch.tensor(signal)).all() for signal in signals):
                    logger.warning(
                        "a signal of the schedule is undefined (one language?): it spreads nothing, as if uniform"
                    )
            sizes = [block.size for block in self.blocks]
            shares = [size / sum(sizes) for size in sizes]
            lower = [count / size for count, size in zip(zeros, sizes, strict=True)]
            sparsities = self.schedule.allocate(signals, shares, sparsity, lower)
            achieved = sum(share * value for share, value in zip(shares, sparsities, strict=True))
            # A block that is empty already is the one case in which a sparsity of 1 is right.
            bounded = all(0 <= value < 1 or value == floor for value, floor in zip(sparsities, lower, strict=True))
            if not (abs(achieved - sparsity) <= 1e-9 and bounded):
                raise SparsityError(f"the schedule gave {achieved:.6f} over all blocks where {sparsity} was asked for")
            return sparsities, signals

    def _prune_all(self, targets: Mapping[str, float], statistics: Statistics) -> None:
        for block in self.progress.track(self.blocks, "prune", unit="blocks"):
            for matrix in block.matrices:
                self._prune_matrix(matrix, statistics.get(matrix.name), targets[matrix.name])

    def _prune_by_block(self, targets: Mapping[str, float], statistics: Statistics) -> None:
        by_module = {block.module: block for block in self.blocks}
        bar = iter(self.progress.track(self.blocks, "calibrate and prune", unit="blocks"))
        with Lockstep(self._forward, self._batches(), list(by_module)) as walk:
            while arrivals := walk.advance():
                block = by_module[arrivals[0].module]
                observer = Observer(block.matrices, len(self.calibration.codes))
                with _Stopwatch(self.seconds, "calibrate"), observer.watching():
                    for arrival in arrivals:
                        with observer.reading(arrival.batch):
                            arrival.module(*arrival.args, **arrival.kwargs)
                _check_finite(observer.statistics)
                for matrix in block.matrices:
                    self._prune_matrix(matrix, observer.statistics[matrix.name], targets[matrix.name])
                next(bar, None)
        next(bar, None)

    def _prune_on_arrival(self, targets: Mapping[str, float], statistics: Statistics) -> None:
        by_module = {matrix.module: matrix for matrix in self._matrices}
        bar = iter(self.progress.track(self._matrices, "calibrate and prune", unit="matrices"))
        previous: list[torch.Tensor] = []
        observer: Observer | None = None
        with Lockstep(self._forward, self._batches(), list(by_module)) as walk:
            while arrivals := self._timed(walk.advance):
                matrix = by_module[arrivals[0].module]
                inputs = [arrival.args[0] for arrival in arrivals]
                shared = observer is not None and _same(inputs, previous)
                with _Stopwatch(self.seconds, "calibrate"):
                    if observer is None or not shared:
                        observer = Observer([matrix], len(self.calibration.codes))
                        for arrival, values in zip(arrivals, inputs, strict=True):
                            observer.add(matrix.name, values, arrival.batch)
                        _check_finite(observer.statistics)
                (seen,) = observer.statistics.values()
                self._prune_matrix(matrix, seen, targets[matrix.name])
                previous = inputs
                next(bar, None)
        next(bar, None)

    def _timed(self, advance: Callable[[], list]) -> list:  # type: ignore[type-arg]
        with _Stopwatch(self.seconds, "calibrate"):
            return advance()

    def _prune_matrix(self, matrix: Matrix, statistics: LanguageStatistics | None, sparsity: float) -> None:
        with _Stopwatch(self.seconds, "prune"):
            weight, group = matrix.weight, self.criterion.group
            zeros = weight == 0
            planned = self.pattern.planned(zeros, sparsity, group)
            # A weight that is zero already goes before others that score zero (their input may never be active).
            scores = self.criterion.score(weight, statistics).masked_fill(zeros, -1)
            weight.masked_fill_(self.pattern.removed(scores, sparsity, group), 0)
            self.plans.append(MatrixPlan(matrix.name, matrix.shape, matrix.block, sparsity, int(zeros.sum()), planned))


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
    if fixed is not None and schedule.needs_statistics:
        raise ConfigurationError(
            "schedule",
            type(schedule).__name__.lower(),
            f"pattern={pattern.name} is the same in all blocks",
            ["uniform"],
        )


def check_blocks(blocks: Sequence[Block], pattern: Pattern, sparsity: float) -> list[int]:
    """Return the zeros that each block holds already, or refuse what its weights do not allow.

    Raises:
        SparsityError: a matrix cannot follow the pattern, there are more zeros than the target, or no finite weights.
    """
    for block in blocks:
        for matrix in block.matrices:
            pattern.check(matrix.shape)
    return check_target(blocks, sparsity)


class _Stopwatch:
    """Adds the time spent in a `with` block to one entry."""

    def __init__(self, seconds: dict[str, float], key: str):
        self._seconds, self._key = seconds, key

    def __enter__(self) -> None:
        self._start = perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._key] += perf_counter() - self._start


def _tokens(batch: Batch) -> int:
    return batch.tokens.numel()


def _same(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(a is b for a, b in zip(first, second, strict=True))


def _check_finite(statistics: Statistics) -> None:
    for name, seen in statistics.items():
        if not bool(torch.isfinite(seen.sum_squares).all()):
            raise CalibrationError(f"the inputs of {name} are not finite; try model.dtype=float32")
        if int(seen.tokens.sum()) == 0:
            raise CalibrationError(f"no calibration token reached {name}")
