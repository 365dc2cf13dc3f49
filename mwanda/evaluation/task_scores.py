"""Task scores per document, and the estimates and paired differences made of them."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mwanda.evaluation.suites import Chosen
from mwanda.evaluation.tasks import documents


RESAMPLES = 100
"""Of the bootstrap for metrics that are no mean over documents, such as BLEU; lm-eval takes as many."""

Values = dict[tuple[str, int], Any]
"""A metric's value for each document, by task and number."""


@dataclass
class Task:
    """A task with its data, ready to be run; a group that is a mean over all its documents counts as one task."""

    chosen: Chosen
    name: str
    leaves: dict[str, Any]

    def aggregation(self, metric: str) -> Callable[[Sequence[Any]], float] | None:
        """Return how a metric is computed from its documents' values; None for the mean."""
        from lm_eval.api.metrics import mean

        function = next(iter(self.leaves.values())).aggregation().get(metric.partition(",")[0], mean)
        return None if function is mean else function


@dataclass
class Scores:
    """The per-document values of one model, for each task and metric."""

    values: dict[str, dict[str, Values]] = field(default_factory=dict)

    def as_rows(self) -> list[Any]:
        """Return a row for each value, as JSON can hold it: a metric's values may be texts or pairs."""
        return [
            [task, metric, leaf, document, _encoded(value)]
            for task, metrics in self.values.items()
            for metric, values in metrics.items()
            for (leaf, document), value in values.items()
        ]

    @classmethod
    def of_rows(cls, rows: Iterable[Sequence[Any]]) -> "Scores":
        """Undo `as_rows`."""
        scores = cls()
        for task, metric, leaf, document, value in rows:
            scores.values.setdefault(task, {}).setdefault(metric, {})[leaf, document] = _decoded(value)
        return scores


HEADLINES = ("acc_norm", "acc", "exact_match,flexible-extract", "exact_match", "chrf")


def headline(metrics: Mapping[str, Any]) -> str:
    """Return the metric that stands for a task where there is room for one."""
    return next((name for name in HEADLINES if name in metrics), next(iter(metrics)))


def about(task: Task, scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Return what results.json says of a task besides its scores."""
    leaf = next(iter(task.leaves.values()))
    measured = next(iter(scores.values())).values[task.name]
    return {
        "suite": task.chosen.suite,
        "language": task.chosen.language.code if task.chosen.language else None,
        "documents": max((len(values) for values in measured.values()), default=0),
        "few_shot": leaf.get_config("num_fewshot"),
        "version": str(leaf.VERSION),
        "chance": 1 / documents.CHOICES if task.chosen.folder is None else None,
    }


def entries(task: Task, models: Sequence[Mapping[str, Values]], seed: int) -> dict[str, float | None]:
    """Return every metric and its standard error, of one model or of the first minus the second."""
    entries: dict[str, float | None] = {}
    for metric in models[0]:
        both = [key for key in models[0][metric] if all(key in model.get(metric, {}) for model in models)]
        columns = [[model[metric][key] for key in both] for model in models]
        name, comma, filtered = metric.partition(",")
        found = _estimate(columns, task.aggregation(metric), seed)
        value, error = (None if math.isnan(number) else number for number in found)
        entries |= {metric: value, f"{name}_stderr{comma}{filtered}": error}
    return entries


def _estimate(
    columns: Sequence[Sequence[Any]], aggregation: Callable[[Sequence[Any]], float] | None, seed: int
) -> tuple[float, float]:
    count = len(columns[0])
    if aggregation is None:
        values = np.array(columns[0], dtype=float)
        if len(columns) == 2:
            values = values - np.array(columns[1], dtype=float)
        error = float(values.std(ddof=1)) / math.sqrt(count) if count > 1 else math.nan
        return float(values.mean()), error

    def value(chosen: Any) -> float:
        first, *second = [float(aggregation([column[at] for at in chosen])) for column in columns]
        return first - sum(second)

    generator = np.random.default_rng(seed)
    resampled = [value(generator.integers(count, size=count)) for _ in range(RESAMPLES)] if count > 1 else []
    return value(range(count)), float(np.std(resampled, ddof=1)) if resampled else math.nan


def values(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Values]:
    """Return the values of each document, by metric."""
    values: dict[str, Values] = {}
    for task, rows in samples.items():
        for row in rows:
            for metric in row["metrics"]:
                name = metric if row["filter"] == "none" else f"{metric},{row['filter']}"
                values.setdefault(name, {})[task, row["doc_id"]] = row[metric]
    return values


def _encoded(value: Any) -> Any:
    """Return a value as JSON can hold it, tuples told from lists."""
    if isinstance(value, tuple):
        return {"tuple": [_encoded(each) for each in value]}
    if isinstance(value, list):
        return [_encoded(each) for each in value]
    if hasattr(value, "item"):  # a number of NumPy
        return value.item()
    return value


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(_decoded(each) for each in value["tuple"])
    return [_decoded(each) for each in value] if isinstance(value, list) else value
