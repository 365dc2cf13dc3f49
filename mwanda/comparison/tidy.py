"""Scores of tasks by suite."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mwanda.comparison.records import Run


@dataclass(frozen=True)
class TaskScore:
    """One task of one run: its values with standard errors, where they are known."""

    language: str | None
    documents: int
    dense: tuple[float | None, float | None]
    pruned: tuple[float | None, float | None]
    difference: tuple[float | None, float | None]


def task_scores(run: Run, metric_of: Callable[[Mapping[str, Any]], str]) -> dict[tuple[str, str], dict[str, TaskScore]]:
    """Return the scores of a run by suite and metric, then by task."""
    tasks = run.results.get("tasks") or {}
    found: dict[tuple[str, str], dict[str, TaskScore]] = {}
    for task, about in (tasks.get("about") or {}).items():
        versions = [(tasks.get(which) or {}).get(task, {}) for which in ("dense", "pruned", "difference")]
        metric = metric_of(versions[0])
        name, comma, filtered = metric.partition(",")
        pairs = [(each.get(metric), each.get(f"{name}_stderr{comma}{filtered}")) for each in versions]
        found.setdefault((about["suite"], metric), {})[task] = TaskScore(
            about.get("language"), int(about.get("documents") or 0), *pairs
        )
    return found
