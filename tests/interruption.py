"""Runs that are interrupted, and what they would have given otherwise."""

import copy
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from mwanda.calibration import CalibrationSet
from mwanda.criteria import Criterion
from mwanda.criteria.wanda import Wanda
from mwanda.models.weights import Resident, Weights
from mwanda.patterns import Pattern
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner, PruningReport
from mwanda.pruner.run_checkpoint import RunCheckpoint
from mwanda.pruner.runtime import Runtime
from mwanda.schedules import Schedule
from mwanda.schedules.uniform import Uniform
from mwanda.solvers import Solver


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
    solver: Solver | None = None

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
            Runtime(
                weights=weights or Resident(),
                checkpoint=None if folder is None else RunCheckpoint(folder, "key"),
                progress=progress or StopAt(),
            ),
            self.solver,
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


class Killed(BaseException):
    """What a process that is gone would not see."""


@dataclass
class Death:
    """Kills the run at the n-th operation on a file: that one and all after it no longer happen.

    Args:
        at: n.
    """

    at: int
    count: int = 0

    def guard(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        """Return `operation` for as long as the process lives."""

        def guarded(*args: Any, **kwargs: Any) -> Any:
            if self.count >= self.at:
                raise Killed
            self.count += 1
            return operation(*args, **kwargs)

        return guarded

    def write_half(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        """Return an `operation` that writes a file, and leaves half of it when the process dies."""

        def guarded(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
            if self.count < self.at:
                operation(tensors, path, metadata)
            elif self.count == self.at:
                Path(path).write_bytes(b"\x00\x01half")
            self.count += 1
            if self.count > self.at:
                raise Killed

        return guarded


def killed_at(run: Callable[[], object], operation: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run until before the given operation on a file; return whether the run came that far."""
    death = Death(operation)
    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", death.write_half(sys.modules["safetensors.torch"].save_file))
        patch.setattr("os.replace", death.guard(os.replace))
        patch.setattr("tempfile.mkdtemp", death.guard(sys.modules["tempfile"].mkdtemp))
        patch.setattr("pathlib.Path.unlink", death.guard(Path.unlink))
        patch.setattr("pathlib.Path.chmod", death.guard(Path.chmod))
        try:
            run()
        except Killed:
            return True
    return False
