"""Writes the report: reads records, makes tables and pictures, and says what must not be compared."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mwanda.comparison import frame, html, masks, pictures, render
from mwanda.comparison.configurations import Configuration, configurations, repeated
from mwanda.comparison.page_data import page_data
from mwanda.comparison.records import UNREADABLE, Run, Settings, Unfinished, find_runs
from mwanda.comparison.tables import Section, sections
from mwanda.comparison.tidy import task_scores
from mwanda.errors import ConfigurationError
from mwanda.evaluation.task_scores import headline
from mwanda.inside.columns import COLUMNS as INSIDE
from mwanda.inside.columns import FOLDER
from mwanda.system.files import csv_text, write_text


VERSIONS = ("dense", "pruned", "difference")
NAMED = 20
"""Damaged runs that the terminal names; report.md lists all."""

INSIDE_SUMMARY = ("energy_lost", "drift", "rank_correlation", "intersection_over_union")


@dataclass(frozen=True)
class Report:
    """What was written."""

    runs: int
    unfinished: int
    warnings: list[str]
    path: Path


def write(
    folders: Sequence[Path],
    output: Path,
    baseline: Settings | None = None,
    grouping: str | None = None,
    *,
    plots: bool = True,
) -> Report:
    """Write the report of all runs below `folders` into `output`.

    Raises:
        ConfigurationError: there is no run, or none is what `baseline` says.
    """
    runs, unfinished = find_runs(folders)
    if not runs:
        first = unfinished[0]
        reason = f"none of {len(unfinished)} runs is complete ({first.name}: {first.status}, {first.reason})"
        raise ConfigurationError("DIR", ", ".join(map(str, folders)), reason)
    every = configurations(runs)
    found = sections(runs, baseline, grouping)
    warnings = _warnings(every, found, runs, unfinished)
    overlaps = masks.overlap(every)
    tables = {
        "summary.csv": csv_text([row for each in found for row in render.summary_rows(each)], render.SUMMARY),
        "layers.csv": csv_text(_layers(every), ("run", "configuration", "seed", "layer", "target", "achieved")),
    }
    if overlaps:
        tables["mask_overlap.csv"] = csv_text(overlaps, masks.COLUMNS)
    tables |= {f"inside_{name}.csv": text for name in INSIDE if (text := _inside(every, name)) is not None}
    if found:
        tables["table.tex"] = "\n".join(render.latex(render.comparison(each), _caption(each)) for each in found)
    drawn = pictures.draw(every, found, overlaps, output) if plots else []
    for name, text in tables.items():
        write_text(output / name, text)
    frame.write(frame.tidy(every), output, "results")
    shown, further = page_data(every, found, unfinished, warnings, output)
    warnings += further
    page = html.available()
    if page:
        html.write_html(output / html.FILE, shown)
    sentences = [sentence for each in shown["protocols"] for sentence in each["findings"]]
    files = [*([html.FILE] if page else []), "results.csv", "results.parquet", *tables]
    text = _markdown(every, found, unfinished, warnings, files, drawn, sentences)
    write_text(output / "report.md", text if page else f"{text}\n{html.HOW}\n")
    return Report(len(runs), len(unfinished), warnings, output / (html.FILE if page else "report.md"))


def _warnings(
    every: Sequence[Configuration], found: Sequence[Section], runs: Sequence[Run], unfinished: Sequence[Unfinished]
) -> list[str]:
    warnings = []
    if len(found) > 1:
        names = ", ".join(f"{name} {digest} ({text})" for digest, name, text in (each.protocol for each in found))
        warnings.append(
            f"perplexities of {len(found)} protocols are not comparable, and stand in tables of their own: {names}"
        )
    for section in found:
        if section.left_out:
            warnings.append(
                f"protocol {section.protocol[0]}: not every run has {', '.join(section.left_out[:6])}"
                f"{' …' if len(section.left_out) > 6 else ''}; all columns are over the {len(section.languages)} "
                "languages that every run has"
            )
    for configuration in every:
        again = repeated(configuration)
        if again:
            warnings.append(
                f"{configuration.label}: seed {', '.join(again)} is there more than once; the last one counts"
            )
    without = [run.name for run in runs if run.protocol is None]
    if without and found:
        warnings.append(
            f"{len(without)} runs measured no perplexity and are in no table of it: {', '.join(without[:6])}"
        )
    warnings += [f"{run.name}/{name} is left out: {reason}" for run in runs for name, reason in run.damaged.items()]
    lost = {run.name: _overflowed(run) for run in runs if _overflowed(run)}
    warnings += [
        f"{name}: the pruned perplexity of {', '.join(codes[:6])}{' …' if len(codes) > 6 else ''} is infinite, which "
        "counts as hurt; means over such languages are infinite as well"
        for name, codes in lost.items()
    ]
    for run in runs:
        without = [code for code, each in (run.perplexity.get("dense") or {}).items() if each["perplexity"] is None]
        if without:
            warnings.append(f"{run.name}: no number was measured of the dense model in {', '.join(without[:6])}")
    unreadable = [each for each in unfinished if each.status == UNREADABLE]
    warnings += [f"{each.name} cannot be read: {each.reason}" for each in unreadable[:NAMED]]
    if unfinished:
        warnings.append(f"{len(unfinished)} runs are not complete and in no table; report.md lists them")
    return warnings


def _overflowed(run: Run) -> list[str]:
    return [code for code, change in run.changes.items() if math.isinf(change.pruned)]


def _markdown(
    every: Sequence[Configuration],
    found: Sequence[Section],
    unfinished: Sequence[Unfinished],
    warnings: Sequence[str],
    tables: Sequence[str],
    drawn: Sequence[tuple[str, str]],
    findings: Sequence[str],
) -> str:
    lines = ["# Comparison", "", f"{sum(len(each.runs) for each in every)} runs, {len(every)} configurations.", ""]
    lines += [*(f"- {finding}" for finding in findings), ""]
    lines += [f"> **Careful:** {warning}." for warning in warnings]
    for section in found:
        lines += [
            "",
            f"## Perplexity: {_caption(section)}",
            "",
            render.markdown(render.comparison(section)),
            _legend(section),
        ]
    lines += _task_lines(every)
    lines += _inside_lines(every)
    for name, caption in drawn:
        lines += ["", f"## {caption}", "", f"![{caption}]({name})", "", f"[SVG]({name.removesuffix('.png')}.svg)"]
    if unfinished:
        lines += ["", "## Not complete", "", "| run | status | why |", "|---|---|---|"]
        lines += [f"| {each.name} | {each.status} | {each.reason.replace('|', '/')} |" for each in unfinished]
    lines += ["", "## Files", "", *(f"- [{name}]({name})" for name in tables)]
    return "\n".join(lines) + "\n"


def _caption(section: Section) -> str:
    digest, name, text = section.protocol
    return f"{len(section.languages)} languages of {text}, protocol {name} {digest}"


def _legend(section: Section) -> str:
    baseline = section.baseline and ", ".join(f"{key}={value}" for key, value in section.baseline.items())
    return (
        "dense, pruned: geometric means of token perplexities over languages. ratio: geometric mean of pruned over "
        "dense; worst: the highest ratio, and whose; spread: highest over lowest ratio; hurt: languages significantly "
        "worse (Holm); seen, unseen: the ratio over languages whose text calibrated the pruning, and over the others. "
        + (
            f"to baseline: pruned geometric mean against {baseline}, seed by seed. "
            if baseline
            else "No baseline run. "
        )
        + "± is the standard deviation over n seeds; without it there is one. Zeros are not bytes: nothing got smaller."
    )


def _task_lines(every: Sequence[Configuration]) -> list[str]:
    rows = []
    for configuration in every:
        for run in configuration.runs:
            for (suite, metric), tasks in task_scores(run, headline).items():
                columns = [[getattr(task, which)[0] for task in tasks.values()] for which in VERSIONS]
                documents = sum(task.documents for task in tasks.values())
                counts = [str(len(tasks)), str(documents)]
                rows.append([configuration.label, run.seed, suite, metric, *counts, *map(_three, map(_mean, columns))])
    if not rows:
        return []
    headings = ["configuration", "seed", "suite", "metric", "tasks", "documents", "dense", "pruned", "difference"]
    table = render.Table(headings, rows, set())
    note = "Means over the tasks of a suite; results.csv has each with its standard error (differences: paired)."
    return ["", "## Tasks", "", render.markdown(table), note]


def _inside_lines(every: Sequence[Configuration]) -> list[str]:
    rows = []
    for configuration in every:
        inside = configuration.runs[0].results.get("inside")
        if inside:
            means = [_mean([layer.get(key) for layer in inside["per_layer"]]) for key in INSIDE_SUMMARY]
            neurons = inside.get("neurons") or {}
            counts = [str(neurons.get(key, "–")) for key in ("specific", "own")]
            shares = [neurons.get(key) for key in ("weights_lost", "specific_weights_lost", "own_weights_lost")]
            rows.append([configuration.label, *map(_three, means), *counts, *map(_three, shares)])
    if not rows:
        return []
    headings = ["configuration", "energy lost", "drift", "rank correlation", "mask overlap"]
    headings += ["specific neurons", "of one language", "weights lost, all", "specific", "of one language"]
    note = (
        "Of the first seed, means over blocks and languages. Energy lost: squared error of what a pruned block adds to "
        "its dense input, over the square of what the dense block adds; drift: squared error of the hidden states "
        "behind a block, pruned blocks before it included; both without the first token of a sequence. Rank "
        "correlation: Spearman, of the languages' activation profiles; mask overlap: intersection over union of what "
        "single calibration languages would keep. Neurons by LAPE; weights lost: share of the non-zero weights into "
        "and out of them."
    )
    return ["", "## Inside", "", render.markdown(render.Table(headings, rows, set())), note]


def _layers(every: Sequence[Configuration]) -> list[dict[str, Any]]:
    return [
        {"run": run.name, "configuration": each.label, "seed": run.seed, **layer}
        for each in every
        for run in each.runs
        for layer in run.results["sparsity"]["per_layer"]
    ]


def _inside(every: Sequence[Configuration], name: str) -> str | None:
    """Return the tables of one name of all runs as one."""
    rows: list[Mapping[str, Any]] = []
    for each in every:
        for run in each.runs:
            path = run.file(f"{FOLDER}/{name}.csv")
            if path is not None:
                own = {"run": run.name, "configuration": each.label, "seed": run.seed}
                with path.open(encoding="utf-8", newline="") as stream:
                    rows += [{**own, **row} for row in csv.DictReader(stream)]
    return csv_text(rows, ("run", "configuration", "seed", *INSIDE[name])) if rows else None


def _mean(values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def _three(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
