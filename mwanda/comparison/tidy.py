"""The tidy frame, run × language or task × metric, of which all tables, files and charts are made.

What has a row for each block and none for a language is a frame of its own, with the same index and the same writers.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mwanda.comparison.configurations import FIRST, Configuration, language_of
from mwanda.comparison.records import Run
from mwanda.evaluation.task_scores import headline
from mwanda.system.files import atomic, write_text


if TYPE_CHECKING:
    from pandas import DataFrame

Value = tuple[str, Any, Any, Any, Any]
"""Metric, value, ends of its interval, standard error."""

OF_RUN = ("run", "configuration", *FIRST, "seed")
OF_LANGUAGE = ("language", "family", "script", "resource_level")
VALUES = ("metric", "value", "low", "high", "standard_error")
TIDY = (*OF_RUN, "protocol", *OF_LANGUAGE, "calibrated", "suite", "documents", *VALUES)
VERSIONS = ("dense", "pruned", "difference")
MEASURES = ("energy_lost", "drift", "rank_correlation", "intersection_over_union")
BLOCK = ("run", "configuration", "seed", "layer", "target", "achieved", *MEASURES)


def tidy(every: Sequence[Configuration]) -> "DataFrame":
    """Return a row for each run, language or task, and metric; its index is the number of the run."""
    import pandas

    runs = [(one, run) for one in every for run in one.runs]
    about: list[tuple] = []
    places: list[int] = []
    values: list[Value] = []
    for number, (one, run) in enumerate(runs):
        for common, own in (*_of_perplexity(one, run), *_of_tasks(run)):
            places += [len(about)] * len(own)
            values += own
            about.append((number, *common))
    # What a language's rows share is written once and repeated by pandas: there can be a million of them.
    shared = pandas.DataFrame(about, columns=["number", "protocol", "language", "calibrated", "suite", "documents"])
    named = pandas.DataFrame([_of_run(*each) for each in runs], columns=list(OF_RUN))
    languages = pandas.DataFrame([_of_language(code) for code in shared.language.unique()], columns=list(OF_LANGUAGE))
    shared = shared.merge(named, left_on="number", right_index=True, how="left").merge(languages, how="left")
    measured = pandas.DataFrame(values, columns=list(VALUES)).astype(dict.fromkeys(VALUES[1:], "float64"))
    frame = pandas.concat([shared.iloc[places].reset_index(drop=True), measured], axis=1)
    return frame.set_index("number")[list(TIDY)]


def numbers(every: Sequence[Configuration]) -> dict[int, int]:
    """Return the number that each run has in the tidy frame, by the identity of the run."""
    return {id(run): number for number, run in enumerate(run for one in every for run in one.runs)}


def of_first_seed(every: Sequence[Configuration], frame: "DataFrame") -> "DataFrame":
    """Return the rows of the first run of each configuration."""
    places = numbers(every)
    return frame[frame.index.isin([places[id(each.runs[0])] for each in every])]


def blocks(every: Sequence[Configuration]) -> "DataFrame":
    """Return a row for each run and block: its sparsity and, where the run looked inside, the means over languages."""
    import pandas

    runs = [(one.label, run) for one in every for run in one.runs]
    rows = []
    for number, (label, run) in enumerate(runs):
        inside = {each["layer"]: each for each in (run.results.get("inside") or {}).get("per_layer", ())}
        own = {"number": number, "run": run.name, "configuration": label, "seed": run.seed}
        rows += [{**own, **each, **inside.get(each["layer"], {})} for each in run.results["sparsity"]["per_layer"]]
    frame = pandas.DataFrame(rows, columns=["number", *BLOCK]).set_index("number")
    return frame.astype(dict.fromkeys(("target", "achieved", *MEASURES), "float64"))


def by_language(frame: "DataFrame", metric: str, what: str = "value") -> "DataFrame":
    """Return a metric of perplexity, runs by languages in the order of the runs."""
    rows = frame[frame["metric"] == metric]
    return rows.pivot(columns="language", values=what).reindex(columns=rows["language"].unique())


def task_scores(frame: "DataFrame") -> "DataFrame":
    """Return a row for each run and task of a suite: the headline metric of each version, with standard errors."""
    rows = frame[frame["suite"].notna()].reset_index()
    rows[["task", "metric", "version"]] = rows["metric"].str.extract(r"^(.*):([^:]*):(\w+)$")
    chosen = {task: headline(dict.fromkeys(each)) for task, each in rows.groupby("task")["metric"]}
    rows = rows[rows["metric"] == rows["task"].map(chosen)].fillna({"language": "", "documents": 0})
    keys = ["number", "configuration", "seed", "suite", "metric", "task", "language", "documents"]
    wide = rows.pivot(index=keys, columns="version", values=["value", "standard_error"])
    columns = [(what, version) for what in ("value", "standard_error") for version in VERSIONS]
    names = [*VERSIONS, *(f"{version}_error" for version in VERSIONS)]
    return wide.reindex(columns=columns).set_axis(names, axis="columns").reset_index().set_index("number")


def write(frame: "DataFrame", folder: Path, name: str) -> None:
    """Write NAME.csv and NAME.parquet, whole or not at all; pyarrow is quicker at a million rows than pandas."""
    import pyarrow
    from pyarrow import csv, parquet

    table = pyarrow.Table.from_pandas(frame, preserve_index=False)
    with atomic(folder / f"{name}.parquet") as temporary:
        parquet.write_table(table, temporary, compression="zstd")
    with atomic(folder / f"{name}.csv") as temporary:
        csv.write_csv(table, temporary, csv.WriteOptions(quoting_style="needed"))


def write_csv(frame: "DataFrame", path: Path) -> None:
    """Write a small table as CSV, whole or not at all."""
    write_text(path, frame.to_csv(index=False, float_format="%.7g"))


def _of_perplexity(configuration: Configuration, run: Run) -> Iterator[tuple[tuple, list[Value]]]:
    protocol, calibrated = run.protocol, configuration.calibrated()
    pairs = run.perplexity.get("paired") or {}
    for code, change in run.changes.items():
        own: list[Value] = []
        for which, perplexity in (("dense", change.dense), ("pruned", change.pruned)):
            measured = run.perplexity[which][code]
            own.append((f"{which}_perplexity", perplexity, measured.get("low"), measured.get("high"), None))
            for metric in ("bits_per_byte", "bits_per_character"):
                if metric in measured:
                    ends = (measured.get(f"{metric}_low"), measured.get(f"{metric}_high"))
                    own.append((f"{which}_{metric}", measured[metric], *ends, None))
        own.append(("ratio", change.ratio, change.low, change.high, None))
        pair = pairs.get(code) or {}
        own += [(name, pair[name], None, None, None) for name in ("p", "p_holm") if name in pair]
        if change.hurt is not None:
            own.append(("significantly_hurt", int(change.hurt), None, None, None))
        yield (protocol and protocol[0], code, code in calibrated, None, None), own


def _of_tasks(run: Run) -> Iterator[tuple[tuple, list[Value]]]:
    tasks = run.results.get("tasks") or {}
    for which in VERSIONS:
        for task, metrics in (tasks.get(which) or {}).items():
            about = (tasks.get("about") or {}).get(task, {})
            own: list[Value] = []
            for metric, value in metrics.items():
                name, comma, filtered = metric.partition(",")
                if not name.endswith("_stderr"):
                    error = metrics.get(f"{name}_stderr{comma}{filtered}")
                    own.append((f"{task}:{metric}:{which}", value, None, None, error))
            yield (None, about.get("language"), None, about.get("suite"), about.get("documents")), own


def _of_run(configuration: Configuration, run: Run) -> tuple:
    return (run.name, configuration.label, *(run.settings[key] for key in FIRST), run.seed)


def _of_language(code: str | None) -> tuple:
    language = language_of(code) if isinstance(code, str) else None
    return (code, *((language.family, language.script, language.resource_level) if language else (None, None, None)))
