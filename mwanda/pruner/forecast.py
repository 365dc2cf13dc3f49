"""Predicts what pruning would cost each language at any sparsity, under any schedule, without pruning."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from mwanda.calibration import CalibrationSet
from mwanda.criteria import Criterion
from mwanda.models import Block, blocks_of
from mwanda.patterns import Pattern
from mwanda.pruner.allocation import allocate
from mwanda.pruner.audit import ZeroCounts, check_blocks
from mwanda.pruner.damage import Sample, measure_damage
from mwanda.pruner.damage.prediction import Prediction, Predictor, largest_within
from mwanda.pruner.engine import Pruner, dense_pre_pass, signals_of_damage
from mwanda.pruner.runtime import Runtime
from mwanda.pruner.visitors import Seconds
from mwanda.schedules import Schedule
from mwanda.schedules.base import LooksAtGradients


HIGHEST = 0.95
"""The largest sparsity that is looked at."""


@dataclass(frozen=True)
class Forecast:
    """What is known of a dense model.

    Args:
        blocks: of the model.
        schedule: spreads sparsity over blocks or matrices.
        signals: of its units.
        zeros: that are there already.
        alike: whether all matrices have one sparsity (N:M).
        predictor: of the damage.
    """

    blocks: Sequence[Block]
    schedule: Schedule
    signals: Sequence[Sequence[float]]
    zeros: ZeroCounts
    alike: bool
    predictor: Predictor

    def at(self, sparsity: float) -> Prediction:
        """Return what each calibration language is predicted to lose at a sparsity over all prunable weights."""
        found = allocate(self.blocks, self.schedule, self.signals, sparsity, self.zeros, alike=self.alike)
        return self.predictor.at(found.matrices)

    def largest_within(self, limit: float, language: int | None, *, surely: bool) -> float | None:
        """Return the largest sparsity at which no language is predicted to lose more than `limit`.

        Args:
            limit: log-ratio in nats a token.
            language: the only one that counts, or None for all.
            surely: whether the upper end of the interval counts.
        """
        size = sum(block.size for block in self.blocks)
        there = sum(int(count.sum()) for count in self.zeros.values()) / size

        def loss_at(sparsity: float) -> float:
            found = self.at(sparsity)
            losses = found.high if surely else found.log_ratio
            return float(losses.max() if language is None else losses[language])

        return largest_within(loss_at, limit, there, max(there, HIGHEST))


@torch.no_grad()
def forecast(
    model: nn.Module,
    calibration: CalibrationSet,
    criterion: Criterion,
    schedule: Schedule,
    pattern: Pattern,
    pruner: Pruner,
    sample: Sample,
    lowest: float,
    runtime: Runtime,
) -> Forecast:
    """Measure the damage of each matrix, and what the schedule looks at.

    Args:
        model: dense, in evaluation mode; its weights are not changed.
        calibration: of which a part is looked at.
        criterion: says what would be removed.
        schedule: see above.
        pattern: which weights compete.
        pruner: of a run.
        sample: what gradients are taken of.
        lowest: the lowest sparsity that will be asked for.
        runtime: what it is carried out with.

    Raises:
        ConfigurationError: the model does not predict a token from those before it.
        SparsityError: there are more zeros than `lowest`, or the pattern does not suit the model.
        CalibrationError: inputs or gradients are not finite, or there are fewer sequences than processes.
    """
    blocks = blocks_of(model)
    zeros = check_blocks(blocks, pattern, criterion.group, lowest, runtime.weights)
    damage = measure_damage(
        model,
        blocks,
        calibration,
        criterion,
        pattern,
        sample,
        pruner.batch_size,
        pruner.expert_tokens,
        pruner.activations,
        runtime,
        Seconds(),
    )
    if isinstance(schedule, LooksAtGradients):
        signals: Sequence[Sequence[float]] = signals_of_damage(damage, blocks, schedule)
    else:
        signals = dense_pre_pass(model, calibration, schedule, pruner, runtime)
    alike = pattern.fixed_sparsity() is not None
    return Forecast(blocks, schedule, signals, zeros, alike, Predictor(damage))
