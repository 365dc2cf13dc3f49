"""Runs that are interrupted, and what they would have given otherwise."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mwanda.calibration import CalibrationSet
from mwanda.criteria import Criterion
from mwanda.criteria.wanda import Wanda
from mwanda.models.weights import Weights
from mwanda.patterns import Pattern
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner, PruningReport
from mwanda.pruner.journal import Journal
from mwanda.schedules import Schedule
from mwanda.schedules.uniform import Uniform


class Interrupted(Exception):
    """What a run that is stopped on purpose ends with."""


@dataclass
class StopAt:
    """A progress display that ends the run at the n-th step, counted over all bars; never without `step`.

    Args:
        step: where to stop.
        watch: called at each step.
    """

    step: int | None = None
    watch: Callable[[], object] = lambda: None
    steps: list[str] = field(default_factory=list)

    def track(
        self, items: Sequence[Any], title: str, unit: str, weight: Callable[[Any], int] = lambda _: 1
    ) -> Iterator[Any]:
        """Yield `items`."""
        for item in items:
            if len(self.steps) == self.step:
                raise Interrupted
            self.steps.append(title)
            self.watch()
            yield item


@dataclass(frozen=True)
class Job:
    """One way of pruning one model; every run starts from a fresh copy of it."""

    dense: nn.Module
    calibration: CalibrationSet
    pruner: Pruner
    criterion: Criterion = field(default_factory=Wanda)
    schedule: Schedule = field(default_factory=Uniform)
    pattern: Pattern = field(default_factory=Unstructured)
    sparsity: float = 0.5

    def run(
        self,
        folder: Path | None = None,
        progress: StopAt | None = None,
        model: nn.Module | None = None,
        weights: Weights | None = None,
    ) -> "Outcome":
        """Return weights and report; with `folder` finished blocks are written down there, and read from there."""
        model = copy.deepcopy(self.dense) if model is None else model
        report = self.pruner.prune(
            model,
            self.calibration,
            self.criterion,
            self.schedule,
            self.pattern,
            self.sparsity,
            progress or StopAt(),
            weights,
            None if folder is None else Journal(folder, "key"),
        )
        return dict(model.state_dict()), report


Outcome = tuple[dict[str, Tensor], PruningReport]
"""All weights of a pruned model, and the report."""


def assert_same(found: Outcome, expected: Outcome) -> None:
    """Compare two runs: every weight to the bit, and all that was reported but for the time."""
    weights, report = found
    assert weights.keys() == expected[0].keys()
    assert [name for name, value in expected[0].items() if not value.equal(weights[name])] == []
    for part in ("order", "plans", "sparsities", "blocks", "pooled"):
        assert getattr(report, part) == getattr(expected[1], part)
    assert repr(report.signals) == repr(expected[1].signals)  # NaN equals itself only so
