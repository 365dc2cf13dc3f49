"""Results as tidy rows: run × language or task × metric."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mwanda.comparison.configurations import FIRST, Configuration, language_of
from mwanda.comparison.records import Run
from mwanda.comparison.statistics import (
    changes,
)
from mwanda.comparison.tables import Row


TIDY = (
    "run",
    "configuration",
    "model",
    "criterion",
    "solver",
    "schedule",
    "pattern",
    "sparsity",
    "seed",
    "protocol",
    "language",
    "family",
    "script",
    "resource_level",
    "calibrated",
    "metric",
    "value",
    "low",
    "high",
    "standard_error",
)


def tidy(every: Sequence[Configuration]) -> list[Row]:
    """Return a row for each run, language and metric, of perplexity and of tasks."""
    return [row for one in every for run in one.runs for row in (*_of_perplexity(one, run), *_of_tasks(one, run))]


def _of_perplexity(configuration: Configuration, run: Run) -> list[Row]:
    rows: list[Row] = []
    protocol, calibrated = run.protocol, configuration.calibrated()
    for code, change in changes(run.perplexity).items():
        common = _common(configuration, run) | _about(code) | {"protocol": protocol and protocol[0]}
        common["calibrated"] = code in calibrated
        for which in ("dense", "pruned"):
            measured = run.perplexity[which][code]
            for metric in ("perplexity", "bits_per_byte", "bits_per_character"):
                if metric in measured:
                    ends = ("low", "high") if metric == "perplexity" else (f"{metric}_low", f"{metric}_high")
                    low, high = (measured.get(end) for end in ends)
                    name, value = f"{which}_{metric}", measured[metric]
                    rows.append(common | {"metric": name, "value": value, "low": low, "high": high})
        rows.append(common | {"metric": "ratio", "value": change.ratio, "low": change.low, "high": change.high})
        pair = (run.perplexity.get("paired") or {}).get(code) or {}
        rows += [common | {"metric": name, "value": pair[name]} for name in ("p", "p_holm") if name in pair]
        if change.hurt is not None:
            rows.append(common | {"metric": "significantly_hurt", "value": int(change.hurt)})
    return rows


def _of_tasks(configuration: Configuration, run: Run) -> list[Row]:
    rows: list[Row] = []
    tasks = run.results.get("tasks") or {}
    for which in ("dense", "pruned", "difference"):
        for task, metrics in (tasks.get(which) or {}).items():
            about = (tasks.get("about") or {}).get(task, {})
            common = _common(configuration, run) | _about(about.get("language"))
            for metric, value in metrics.items():
                name, comma, filtered = metric.partition(",")
                if not name.endswith("_stderr"):
                    error = metrics.get(f"{name}_stderr{comma}{filtered}")
                    name = f"{task}:{metric}:{which}"
                    rows.append(common | {"metric": name, "value": value, "standard_error": error})
    return rows


def _common(configuration: Configuration, run: Run) -> Row:
    named = {key: run.settings[key] for key in FIRST}
    return {"run": run.name, "configuration": configuration.label, **named, "seed": run.seed}


def _about(code: str | None) -> Row:
    language = language_of(code) if code else None
    if language is None:
        return {"language": code}
    return {
        "language": code,
        "family": language.family,
        "script": language.script,
        "resource_level": language.resource_level,
    }


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
