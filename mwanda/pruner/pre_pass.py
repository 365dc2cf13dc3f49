"""The dense pre-pass: what is looked at in the whole dense model before any of it is pruned."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mwanda.models import Block
from mwanda.models.weights import visit
from mwanda.patterns import Pattern
from mwanda.pruner.allocation import units_of
from mwanda.pruner.audit import ZeroCounts
from mwanda.pruner.damage import Damage, Sample, measure_damage, scoring_criterion
from mwanda.pruner.damage.curves import level_of_rows
from mwanda.pruner.flat import deep, flat
from mwanda.pruner.method import Method
from mwanda.pruner.passes import Passes
from mwanda.pruner.visitors import Dense
from mwanda.schedules import BlockMatrix, Schedule
from mwanda.schedules.base import LooksAtGradients
from mwanda.statistics import UNIFORM, LanguageStatistics, LanguageWeights, Needs


DAMAGE = "damage"
"""What the checkpoint calls the signals of a schedule that looks at gradients."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DensePrePass:
    """Finds the signals of a schedule, and the statistics from which everything is pruned in the order `oneshot`.

    Args:
        passes: through the dense model.
        method: says what would be pruned.
        schedule: says what is looked at.
        pattern: which weights compete.
        zeros: that each comparison group of each matrix holds already; none where nothing is said.
    """

    passes: Passes
    method: Method
    schedule: Schedule
    pattern: Pattern
    zeros: ZeroCounts = field(default_factory=dict)

    def run(self, *, for_all: bool) -> Dense:
        """Look at the model, or take what this run or another one has found.

        Args:
            for_all: whether the statistics that the method needs are kept, from all of the calibration set.
        """
        needs = self.schedule.needs | (self.method.needs if for_all else Needs.NOTHING)
        fraction = self.schedule.signal_fraction if self.schedule.needs and not for_all else 1.0
        visitor = Dense(
            self.passes.calibrator(needs, self.passes.text(fraction)), self.schedule, keep_statistics=for_all
        )
        if isinstance(self.schedule, LooksAtGradients):
            visitor.signals, visitor.rows = self._look_at_gradients(self.schedule)
        if (needs or self.schedule.looks_at == "weights") and not self._take_from_artifacts(visitor):
            if needs:
                with visitor.hooks:
                    self.passes.walk(visitor, "calibrate", fraction)
            else:
                self._look_at_weights(visitor, {})
            self._keep_as_artifact(visitor)
        if any(not torch.isfinite(torch.tensor(signal)).all() for signal in visitor.signals):
            logger.warning("a signal of the schedule is undefined (one language?): it spreads nothing, as if uniform")
        return visitor

    def _look_at_gradients(
        self, schedule: LooksAtGradients
    ) -> tuple[list[tuple[float, ...]], Mapping[str, Float[Tensor, " out"]]]:
        """Return the signals of all units and the damage of each row, by this run, one that was cut off, or another."""
        checkpoint = self.passes.runtime.checkpoint
        noted = checkpoint.noted(DAMAGE) if checkpoint is not None else None
        rows: Mapping[str, Tensor] | None = None
        if checkpoint is not None and noted is not None:
            rows = checkpoint.noted_tensors(DAMAGE)
        if noted is None or rows is None:
            sample = Sample(
                schedule.levels,
                schedule.signal_fraction,
                schedule.labels,
                schedule.draws,
                schedule.seed,
                schedule.information,
                spreads_rows(schedule, self.method),
            )
            damage = measure_damage(self.passes, scoring_criterion(self.method), self.pattern, sample)
            weights = self.passes.calibration.weights
            rows = rows_to_spread(damage, self.passes.blocks, self.zeros)
            noted = json.dumps(signals_of_damage(damage, self.passes.blocks, schedule, weights, rows))
            if checkpoint is not None:
                checkpoint.note_tensors(DAMAGE, rows)
                checkpoint.note(DAMAGE, noted)
        return [tuple(signal) for signal in json.loads(noted)], rows

    def _look_at_weights(self, visitor: Dense, statistics: Mapping[str, LanguageStatistics]) -> None:
        """Visit all blocks without a forward pass, with statistics that are there already."""
        runtime = self.passes.runtime
        for block in visit(runtime.weights, runtime.progress.track(self.passes.blocks, "calibrate", unit="blocks")):
            known = {m.name: statistics[m.name].to(m.weight.device) for m in block.matrices if m.name in statistics}
            visitor.take(block, known)

    def _take_from_artifacts(self, visitor: Dense) -> bool:
        """Give the visitor what another run has found, if there is any; return whether there was."""
        artifacts = self.passes.runtime.artifacts
        found = artifacts.find(*self._artifact_key(visitor)) if artifacts is not None else None
        if found is None:
            return False
        if visitor.keep_statistics:
            visitor.calibrator.pooled = list(found.metadata["pooled"])
            self._look_at_weights(visitor, deep(found.tensors, self.passes.calibration.weights))
        else:
            visitor.signals = [tuple(signal) for signal in found.tensors["signals"].tolist()]
        return True

    def _keep_as_artifact(self, visitor: Dense) -> None:
        artifacts = self.passes.runtime.artifacts
        if artifacts is None:
            return
        signals = torch.tensor(visitor.signals, dtype=torch.float64)
        tensors = flat(visitor.statistics) if visitor.keep_statistics else {"signals": signals}
        artifacts.keep(*self._artifact_key(visitor), tensors, {"pooled": visitor.calibrator.pooled})

    def _artifact_key(self, visitor: Dense) -> tuple[str, dict[str, Any]]:
        """Return kind and key of what the visitor is to find."""
        settings, calibration = self.passes.settings, self.passes.calibration
        key: dict[str, Any] = {
            "needs": str(visitor.calibrator.needs),
            "batch_size": settings.batch_size,
            "expert_tokens": settings.expert_tokens,
        }
        if calibration.weights != UNIFORM:
            key["weights"] = repr(calibration.weights)
        if visitor.keep_statistics:
            return "statistics", key | {"calibration": calibration.fingerprint()}
        looks_at_text = self.schedule.looks_at != "weights"
        text = calibration.part(self.schedule.signal_fraction).fingerprint() if looks_at_text else None
        return "signals", key | {"schedule": repr(self.schedule), "calibration": text}


def spreads_rows(schedule: LooksAtGradients, method: Method) -> bool:
    """Return whether a schedule spreads zeros over rows: what compares the weights of all rows does so by itself."""
    return schedule.rows and method.group == "row"


def rows_to_spread(damage: Damage, blocks: Sequence[Block], zeros: ZeroCounts) -> Mapping[str, Float[Tensor, " out"]]:
    """Return the damage of the rows of each matrix; NaN for those that hold zeros in more than half of what they lose.

    What is zero already is removed first and does no damage, so that such a row would seem to bear everything.

    Args:
        damage: of the dense model.
        blocks: of the model.
        zeros: of each row; none where nothing is said.
    """
    most = damage.levels[level_of_rows(len(damage.levels))] / 2
    inputs = {matrix.name: matrix.shape[1] for block in blocks for matrix in block.matrices}
    return {
        name: rows if name not in zeros else rows.masked_fill(zeros[name] > most * inputs[name], torch.nan)
        for name, rows in damage.rows.items()
    }


def signals_of_damage(
    damage: Damage,
    blocks: Sequence[Block],
    schedule: LooksAtGradients,
    weights: LanguageWeights,
    rows: Mapping[str, Float[Tensor, " out"]],
) -> list[Sequence[float]]:
    """Return the signals of all units of a schedule that is told the damage of each matrix.

    Args:
        damage: by language.
        blocks: of the model.
        schedule: see above.
        weights: of the languages; a schedule takes a mean over what is scaled by them.
        rows: the damage of each row of the matrices whose zeros are spread over rows.
    """
    curves = damage.curves()
    languages = next(iter(curves.values())).shape[0]
    scale = weights.tensor(languages, torch.device("cpu"))
    scale = scale / scale.mean()
    return [
        schedule.signal(
            [BlockMatrix(m.weight, damage=curves[m.name] * scale[:, None], rows=rows.get(m.name)) for m in unit]
        )
        for block in blocks
        for unit in units_of(block, schedule.level)
    ]
