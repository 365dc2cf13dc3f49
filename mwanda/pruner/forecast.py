"""Predicts what pruning would cost each language at any sparsity, under any schedule, without pruning."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mwanda.models import Block
from mwanda.patterns import Pattern
from mwanda.pruner.allocation import allocate
from mwanda.pruner.audit import ZeroCounts, check_blocks
from mwanda.pruner.damage import Sample, measure_damage, scoring_criterion
from mwanda.pruner.damage.prediction import Prediction, Predictor, largest_within
from mwanda.pruner.method import Method
from mwanda.pruner.passes import Passes
from mwanda.pruner.pre_pass import DensePrePass, rows_to_spread, signals_of_damage
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
    passes: Passes, method: Method, schedule: Schedule, pattern: Pattern, sample: Sample, lowest: float
) -> Forecast:
    """Measure the damage of each matrix, and what the schedule looks at.

    Args:
        passes: through the dense model; its weights are not changed.
        method: says what would be pruned.
        schedule: spreads sparsity over blocks or matrices.
        pattern: which weights compete.
        sample: what gradients are taken of.
        lowest: the lowest sparsity that will be asked for.

    Raises:
        ConfigurationError: the model does not predict a token from those before it.
        SparsityError: there are more zeros than `lowest`, or the pattern does not suit the model.
        CalibrationError: inputs or gradients are not finite, or there are fewer sequences than processes.
    """
    blocks, weights = passes.blocks, passes.calibration.weights
    zeros = check_blocks(blocks, pattern, method.group, lowest, passes.runtime.weights)
    damage = measure_damage(passes, scoring_criterion(method), pattern, sample)
    if isinstance(schedule, LooksAtGradients):
        rows = rows_to_spread(damage, blocks, zeros)
        signals: Sequence[Sequence[float]] = signals_of_damage(damage, blocks, schedule, weights, rows)
    else:
        signals = DensePrePass(passes, method, schedule, pattern).run(for_all=False).signals
    alike = pattern.fixed_sparsity() is not None
    return Forecast(blocks, schedule, signals, zeros, alike, Predictor(damage))
