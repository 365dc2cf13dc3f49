"""The tidy frame: run × language or task × metric, from which CSV and Parquet are written."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mwanda.comparison.configurations import FIRST, Configuration, language_of
from mwanda.comparison.records import Run
from mwanda.system.files import atomic


if TYPE_CHECKING:
    from pandas import DataFrame

Row = dict[str, Any]
Value = tuple[str, Any, Any, Any, Any]
"""Metric, value, ends of its interval, standard error."""

VALUES = ("metric", "value", "low", "high", "standard_error")
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
    *VALUES,
)


def tidy(every: Sequence[Configuration]) -> "DataFrame":
    """Return a row for each run, language and metric, of perplexity and of tasks."""
    import pandas

    about: list[Row] = []
    places: list[int] = []
    values: list[Value] = []
    for one in every:
        for run in one.runs:
            for common, own in (*_of_perplexity(one, run), *_of_tasks(one, run)):
                places += [len(about)] * len(own)
                values += own
                about.append(common)
    # What a language's rows share is written once and repeated by pandas: there can be a million of them.
    shared = pandas.DataFrame(about, columns=[name for name in TIDY if name not in VALUES])
    measured = pandas.DataFrame(values, columns=list(VALUES)).astype(dict.fromkeys(VALUES[1:], "float64"))
    return pandas.concat([shared.iloc[places].reset_index(drop=True), measured], axis=1)


def write(frame: "DataFrame", folder: Path, name: str) -> None:
    """Write NAME.csv and NAME.parquet, whole or not at all."""
    import pyarrow
    from pyarrow import csv, parquet

    table = pyarrow.Table.from_pandas(frame, preserve_index=False)
    with atomic(folder / f"{name}.parquet") as temporary:
        parquet.write_table(table, temporary, compression="zstd")
    plain = csv.WriteOptions(quoting_style="needed")
    with atomic(folder / f"{name}.csv") as temporary:
        csv.write_csv(table, temporary, plain)


def _of_perplexity(configuration: Configuration, run: Run) -> Iterator[tuple[Row, list[Value]]]:
    protocol, calibrated = run.protocol, configuration.calibrated()
    for code, change in run.changes.items():
        common = _common(configuration, run) | _about(code) | {"protocol": protocol and protocol[0]}
        common["calibrated"] = code in calibrated
        own: list[Value] = []
        for which in ("dense", "pruned"):
            measured = run.perplexity[which][code]
            for metric in ("perplexity", "bits_per_byte", "bits_per_character"):
                if metric in measured:
                    ends = ("low", "high") if metric == "perplexity" else (f"{metric}_low", f"{metric}_high")
                    own.append((f"{which}_{metric}", measured[metric], *(measured.get(end) for end in ends), None))
        own.append(("ratio", change.ratio, change.low, change.high, None))
        pair = (run.perplexity.get("paired") or {}).get(code) or {}
        own += [(name, pair[name], None, None, None) for name in ("p", "p_holm") if name in pair]
        if change.hurt is not None:
            own.append(("significantly_hurt", int(change.hurt), None, None, None))
        yield common, own


def _of_tasks(configuration: Configuration, run: Run) -> Iterator[tuple[Row, list[Value]]]:
    tasks = run.results.get("tasks") or {}
    for which in ("dense", "pruned", "difference"):
        for task, metrics in (tasks.get(which) or {}).items():
            about = (tasks.get("about") or {}).get(task, {})
            own: list[Value] = []
            for metric, value in metrics.items():
                name, comma, filtered = metric.partition(",")
                if not name.endswith("_stderr"):
                    error = metrics.get(f"{name}_stderr{comma}{filtered}")
                    own.append((f"{task}:{metric}:{which}", value, None, None, error))
            yield _common(configuration, run) | _about(about.get("language")), own


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
