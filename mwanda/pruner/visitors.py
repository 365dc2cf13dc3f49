"""What is done at each block, in the three orders and in the dense pre-pass of a schedule."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import ClassVar
from weakref import ref

import torch
from torch import Tensor, nn

from mwanda.calibration import Batch
from mwanda.errors import CalibrationError
from mwanda.models import Block, Matrix
from mwanda.pruner.allocation import units_of
from mwanda.pruner.experts import place_of
from mwanda.pruner.flat import deep, flat
from mwanda.pruner.lockstep import Lockstep
from mwanda.pruner.observe import Observer, pool_rare_experts
from mwanda.pruner.remover import Remover
from mwanda.pruner.walk import Arrivals, Decision, Visitor
from mwanda.schedules import BlockMatrix, Schedule
from mwanda.solvers.threshold import Threshold
from mwanda.statistics import UNIFORM, LanguageStatistics, LanguageWeights, Needs
from mwanda.system.device import Mark, fetched
from mwanda.system.distributed import World


CPU = torch.device("cpu")


@dataclass
class Seconds:
    """Time spent by stage; what is left of a whole run is calibration.

    A device is not waited for at each stage: it is asked for the times when all stages are over.
    """

    _spent: dict[str, float] = field(default_factory=lambda: {"calibrate": 0.0, "schedule": 0.0, "prune": 0.0})
    _marks: list[tuple[str, Mark, Mark]] = field(default_factory=list)

    @contextmanager
    def on(self, stage: str, device: torch.device = CPU) -> Iterator[None]:
        """Add the time of the block, which works on a device, to a stage."""
        start = Mark(device)
        try:
            yield
        finally:
            self._marks.append((stage, start, Mark(device)))

    @property
    def by_stage(self) -> dict[str, float]:
        """The seconds of all stages so far."""
        for stage, start, end in self._marks:
            self._spent[stage] += end.seconds_since(start)
        self._marks = []
        return dict(self._spent)


Show = Callable[[Observer], None]
"""Lets an observer see all batches of this process, as they reach its matrices."""


@dataclass
class Calibrator:
    """Makes observers, and completes what they saw.

    Args:
        languages: of the calibration set.
        needs: what of the inputs is asked for.
        fewest_tokens: an expert with fewer is given the statistics of all experts of its block.
        tokens: of the text that passes, of all processes.
        world: the processes that share the batches.
        seconds: the clock.
        weighting: how much each language counts.
        pooled: matrices of experts that were given the statistics of all.
    """

    languages: int
    needs: Needs
    fewest_tokens: int
    tokens: int
    world: World
    seconds: Seconds
    weighting: LanguageWeights = UNIFORM
    pooled: list[str] = field(default_factory=list)
    _unchecked: dict[str, LanguageStatistics] = field(default_factory=dict)
    _experts: set[str] = field(default_factory=set)

    def observer(
        self,
        matrices: Sequence[Matrix],
        lockstep: Lockstep[Batch] | None = None,
        token_weights: Mapping[str, Tensor] | None = None,
        needs: Needs | None = None,
    ) -> Observer:
        """Return an observer that has seen nothing.

        Args:
            matrices: to be watched.
            lockstep: with it, the observer sees which batch is running.
            token_weights: see `token_weights`.
            needs: what of the inputs is asked for, if not all.
        """
        current = (lambda: lockstep.batch) if lockstep is not None else (lambda: None)
        asked = self.needs if needs is None else needs
        return Observer(matrices, self.languages, asked, current, self.weighting, token_weights or {})

    def token_weights(self, matrices: Sequence[Matrix], show: Show) -> dict[str, Tensor]:
        """Return for each matrix the weight of a token of each language in its second moments, or nothing if all are 1.

        Balanced weights depend on the sums of squares of a whole language, so that all batches are shown once more,
        for these sums alone; in return one matrix of second moments is enough, and its weights are exact.
        """
        if Needs.SECOND_MOMENTS not in self.needs or self.weighting.uniform:
            return {}
        if not self.weighting.balanced:
            return {m.name: self.weighting.tensor(self.languages, m.weight.device) for m in matrices}
        observer = self.observer(matrices, needs=Needs.NORMS)
        show(observer)
        statistics = dict(observer.statistics)
        self._all_reduce(statistics)
        pool_rare_experts(statistics, matrices, self.fewest_tokens)
        return {name: each.weights for name, each in statistics.items()}

    def observed(self, matrices: Sequence[Matrix], show: Show) -> dict[str, LanguageStatistics]:
        """Return what all processes saw of matrices to whose observer `show` shows all batches."""
        observer = self.observer(matrices, token_weights=self.token_weights(matrices, show))
        show(observer)
        return self.complete(observer, matrices)

    def complete(self, observer: Observer, matrices: Sequence[Matrix]) -> dict[str, LanguageStatistics]:
        """Return what all processes saw; experts that saw too little get the statistics of all."""
        statistics = dict(observer.statistics)
        for each in statistics.values():
            each.complete()
        # In float64 (second moments in float32): processes differ from one by no more than the order of a sum does.
        self._all_reduce(statistics)
        rare = pool_rare_experts(statistics, matrices, self.fewest_tokens)
        self.pooled += [name for name in rare if name not in self.pooled]
        self._unchecked |= statistics
        self._experts.update(matrix.name for matrix in matrices if matrix.expert is not None)
        return statistics

    def _all_reduce(self, statistics: Mapping[str, LanguageStatistics]) -> None:
        self.world.all_reduce(tensor for each in statistics.values() for tensor in each.tensors() if tensor is not None)

    def check(self) -> None:
        """Check everything completed since the last time; once a block, so that a device is not waited for often.

        Raises:
            CalibrationError: an input was not finite, or a matrix did not see each token once; an expert that saw none.
        """
        if not self._unchecked:
            return
        seen = list(self._unchecked.values())
        asked = [torch.stack([each.finite.long(), each.tokens.sum()]) for each in seen]
        for name, (sound, count) in zip(self._unchecked, torch.stack(asked).tolist(), strict=True):
            if not sound:
                raise CalibrationError(
                    f"the inputs of {name} are not finite, or so large that their sums are not; try model.dtype=float32"
                )
            if count == 0:
                raise CalibrationError(f"no calibration token reached {name}")
            if count != self.tokens and name not in self._experts:
                raise CalibrationError(
                    f"{name} was given {count} vectors for {self.tokens} calibration tokens, so that its statistics "
                    "are not those of the text; choose another model"
                )
        self._unchecked = {}


@dataclass
class Dense(Visitor):
    """Collects the statistics of dense blocks, and a schedule's signals while the weights are in memory.

    Args:
        calibrator: makes observers.
        schedule: whose signals.
        keep_statistics: whether they are kept.
        signals: of all units, in the order of the model.
        statistics: by matrix.
        rows: the damage of each row of each matrix, where a schedule wants to know.
    """

    calibrator: Calibrator
    schedule: Schedule
    keep_statistics: bool
    signals: list[tuple[float, ...]] = field(default_factory=list)
    statistics: dict[str, LanguageStatistics] = field(default_factory=dict)
    rows: Mapping[str, Tensor] = field(default_factory=dict)
    phase: ClassVar[str] = "dense"
    hooks: ExitStack = field(default_factory=ExitStack)
    _observer: Observer | None = None

    def enter(self, block: Block, arrivals: Arrivals, lockstep: Lockstep[Batch]) -> None:
        """Watch the block's matrices while the batches pass."""
        weights = self.calibrator.token_weights(block.matrices, lambda each: run_all(each, arrivals, lockstep))
        self._observer = self.calibrator.observer(block.matrices, lockstep, weights)
        self.hooks.enter_context(self._observer.watching())

    def leave(self, block: Block) -> Decision:
        """Take the signals, and keep the statistics if asked to."""
        assert self._observer is not None  # as the walk enters every block before it leaves it
        self.hooks.close()
        statistics = self.calibrator.complete(self._observer, block.matrices)
        self.calibrator.check()
        self._observer = None
        signals = self._take_signals(block, statistics)
        kept = statistics if self.keep_statistics else {}
        self.statistics |= kept
        return Decision(flat(kept), {"signals": signals, "pooled": list(self.calibrator.pooled)})

    def take(self, block: Block, statistics: Mapping[str, LanguageStatistics]) -> None:
        """Take the statistics of a dense block from another run, and the signals from them and its weights."""
        self._take_signals(block, statistics)
        self.statistics |= statistics

    def _take_signals(self, block: Block, statistics: Mapping[str, LanguageStatistics]) -> list[tuple[float, ...]]:
        if self.schedule.looks_at not in ("weights", "inputs"):
            return []
        with self.calibrator.seconds.on("schedule", block.matrices[0].weight.device):
            units = [
                [BlockMatrix(matrix.weight, statistics.get(matrix.name)) for matrix in unit]
                for unit in units_of(block, self.schedule.level)
            ]
            signals = [tuple(self.schedule.signal(unit)) for unit in units]
        self.signals += signals
        return signals

    def restore(self, block: Block, decision: Decision) -> None:
        """Take signals and statistics from the checkpoint."""
        self.calibrator.pooled = list(decision.metadata["pooled"])
        # JSON has no NaN, which is the signal of one language.
        self.signals += [
            tuple(math.nan if value is None else value for value in signal) for signal in decision.metadata["signals"]
        ]
        if self.keep_statistics:
            self.statistics |= deep(decision.tensors, self.calibrator.weighting)


@dataclass
class _Pruning(Visitor):
    """What the two orders that prune while calibrating have in common.

    Args:
        record_masks: whether the checkpoint has to hold what was decided, or the weights themselves are on disk.
        hooks: what is undone when the walk is over.
    """

    calibrator: Calibrator
    remover: Remover
    record_masks: bool
    hooks: ExitStack = field(default_factory=ExitStack)
    phase: ClassVar[str] = "prune"
    changes_weights: ClassVar[bool] = True

    def leave(self, block: Block) -> Decision:
        """Return the masks."""
        self.calibrator.check()
        records = {matrix.name: self.remover.record(matrix) for matrix in block.matrices} if self.record_masks else {}
        return Decision(_in_memory(records), {"pooled": list(self.calibrator.pooled)})

    def restore(self, block: Block, decision: Decision) -> None:
        """Prune as before."""
        self.calibrator.pooled = list(decision.metadata["pooled"])
        for matrix in block.matrices:
            self.remover.repeat(matrix, decision.tensors.get(matrix.name))

    def _remove(self, matrices: Sequence[Matrix], statistics: dict[str, LanguageStatistics]) -> None:
        if not isinstance(self.remover.method.solver, Threshold):
            self.calibrator.check()  # before anything is solved for: what is not finite has no solution
        with self.calibrator.seconds.on("prune", matrices[0].weight.device):
            for matrix in matrices:
                self.remover.remove(matrix, statistics[matrix.name])


class ByBlock(_Pruning):
    """Runs each dense block once to observe it, prunes it, and lets the batches pass."""

    def enter(self, block: Block, arrivals: Arrivals, lockstep: Lockstep[Batch]) -> None:
        """Observe and prune."""
        statistics = self.calibrator.observed(block.matrices, lambda observer: run_all(observer, arrivals, lockstep))
        self._remove(block.matrices, statistics)


@dataclass
class OnArrival(_Pruning):
    """Prunes a matrix when all batches are about to enter it."""

    _matrices: dict[nn.Module, list[Matrix]] = field(default_factory=dict)
    _seen: LanguageStatistics | None = None
    _inputs: list[ref[Tensor]] = field(default_factory=list)

    def stops(self, block: Block) -> Sequence[nn.Module]:
        """Wait wherever a module is called with what matrices multiply."""
        for matrix in block.matrices:
            self._matrices.setdefault(place_of(matrix), []).append(matrix)
        return list(dict.fromkeys(place_of(matrix) for matrix in block.matrices))

    def reach(self, arrivals: Arrivals) -> None:
        """Observe the inputs of the matrices there, and prune them."""
        matrices = self._matrices[arrivals[0].module]
        if matrices[0].expert is not None:
            self._remove(matrices, self._observed(matrices, arrivals))
            return
        (matrix,) = matrices
        inputs: list[Tensor] = [arrival.args[0] for arrival in arrivals]
        if self._seen is None or not self._same(inputs):
            self._seen = self._observed(matrices, arrivals)[matrix.name]
        self._inputs = [ref(values) for values in inputs]
        self._remove([matrix], {matrix.name: self._seen})

    def _observed(self, matrices: Sequence[Matrix], arrivals: Arrivals) -> dict[str, LanguageStatistics]:
        def show(observer: Observer) -> None:
            for arrival in arrivals:
                observer.add(arrival.module, arrival.args, arrival.batch)

        return self.calibrator.observed(matrices, show)

    def _same(self, inputs: Sequence[Tensor]) -> bool:
        """Return whether these are the very tensors that the matrix before was called with (query, key, value)."""
        before = [inputs_before() for inputs_before in self._inputs]
        return len(before) == len(inputs) and all(a is b for a, b in zip(before, inputs, strict=True))


def _in_memory(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Bring tensors of one dtype into the computer's memory, all in one transfer."""
    if not tensors:
        return {}
    values = list(tensors.values())
    parts = fetched(torch.cat([value.flatten() for value in values])).split([value.numel() for value in values])
    return {name: part.view(value.shape) for (name, value), part in zip(tensors.items(), parts, strict=True)}


def run_all(observer: Observer, arrivals: Arrivals, lockstep: Lockstep[Batch]) -> None:
    """Run the block that all batches are about to enter for each of them, with the observer watching."""
    with observer.watching():
        for arrival in arrivals:
            lockstep.fetch(arrival)
            with observer.reading(arrival.batch):
                arrival.module(*arrival.args, **arrival.kwargs)
            lockstep.offload(arrival)
