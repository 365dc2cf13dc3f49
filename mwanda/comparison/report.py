"""Writes the report: reads records, makes tables and pictures, and says what must not be compared."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mwanda.comparison import html, masks, pictures, render, tidy
from mwanda.comparison.configurations import Configuration, configurations, repeated
from mwanda.comparison.page_data import page_data
from mwanda.comparison.records import UNREADABLE, Run, Settings, Unfinished, find_runs
from mwanda.comparison.tables import SUMMARY, Section, sections
from mwanda.errors import ConfigurationError
from mwanda.inside.columns import COLUMNS as INSIDE
from mwanda.inside.columns import FOLDER
from mwanda.system.files import write_text


if TYPE_CHECKING:
    from pandas import DataFrame

NAMED = 20
"""Damaged runs that the terminal names; report.md lists all."""

COUNTS = ("specific", "own")
SHARES = ("weights_lost", "specific_weights_lost", "own_weights_lost")
"""What a run tells of its language-specific neurons."""


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
    frame = tidy.tidy(every)
    found = sections(every, frame, baseline, grouping)
    scores = tidy.task_scores(frame)
    warnings = _warnings(every, found, runs, unfinished)
    blocks, overlaps = tidy.blocks(every), masks.overlap(every)
    tables = _tables(every, found, blocks, overlaps)
    drawn = pictures.draw(every, found, scores, blocks, overlaps, output) if plots else []
    for name, table in tables.items():
        tidy.write_csv(table, output / name)
    if found:
        captions = ["; ".join(filter(None, (_caption(each), each.common))) for each in found]
        tables_of_all = [render.latex(*each) for each in zip(map(render.comparison, found), captions, strict=True)]
        write_text(output / "table.tex", "\n".join(tables_of_all))
    tidy.write(frame, output, "results")
    shown, further = page_data(every, found, frame, scores, blocks, unfinished, warnings, output)
    warnings += further
    page = html.available()
    if page:
        html.write_html(output / html.FILE, shown)
    several = len(shown["protocols"]) > 1
    sentences = [
        f"On {each['name']}: {sentence}" if several else sentence
        for each in shown["protocols"]
        for sentence in each["findings"]
    ]
    files = [*([html.FILE] if page else []), "results.csv", "results.parquet", *tables]
    files += ["table.tex"] if found else []
    text = _markdown(every, found, unfinished, warnings, files, drawn, sentences, scores, blocks)
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
    scores: "DataFrame",
    blocks: "DataFrame",
) -> str:
    import pandas

    lines = ["# Comparison", "", f"{sum(len(each.runs) for each in every)} runs, {len(every)} configurations.", ""]
    lines += [*(f"- {finding}" for finding in findings), ""]
    lines += [f"> **Careful:** {warning}." for warning in warnings]
    for section in found:
        lines += [
            "",
            f"## Perplexity: {_caption(section)}",
            "",
            *([f"All runs: {section.common}.", ""] if section.common else []),
            render.markdown(render.comparison(section)),
            _legend(section),
        ]
    lines += _task_lines(scores)
    lines += _inside_lines(every, blocks)
    for name, caption in drawn:
        lines += ["", f"## {caption}", "", f"![{caption}]({name})", "", f"[SVG]({name.removesuffix('.png')}.svg)"]
    if unfinished:
        named = pandas.DataFrame(unfinished).rename(columns={"name": "run", "reason": "why"})
        lines += ["", "## Not complete", "", render.plain(named, words=3)]
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


def _task_lines(scores: "DataFrame") -> list[str]:
    if scores.empty:
        return []
    keys = ["number", "configuration", "seed", "suite", "metric"]
    suites = scores.groupby(keys, sort=False)
    table = suites[["documents", *tidy.VERSIONS]].mean().map(_three)
    table["documents"] = suites["documents"].sum().astype(int).astype(str)
    table.insert(0, "tasks", suites.size().astype(str))
    note = "Means over the tasks of a suite; results.csv has each with its standard error (differences: paired)."
    return ["", "## Tasks", "", render.plain(table.reset_index(keys[1:]), words=4), note]


def _inside_lines(every: Sequence[Configuration], blocks: "DataFrame") -> list[str]:
    import pandas

    inside = {each.label: each.runs[0].results.get("inside") for each in every}
    neurons = {label: found.get("neurons") or {} for label, found in inside.items() if found}
    if not neurons:
        return []
    means = tidy.of_first_seed(every, blocks).groupby("configuration")[list(tidy.MEASURES)].mean()
    own = pandas.DataFrame.from_dict(neurons, orient="index").reindex(columns=[*COUNTS, *SHARES]).astype("float64")
    shown = means.join(own, how="right")
    cells = shown.map(_three)
    cells[list(COUNTS)] = shown[list(COUNTS)].map("{:.0f}".format).replace("nan", "–")
    headings = ["configuration", "energy lost", "drift", "rank correlation", "mask overlap", "specific neurons"]
    headings += ["of one language", "weights lost, all", "specific", "of one language"]
    table = cells.reset_index().set_axis(headings, axis="columns")
    note = (
        "Of the first seed, means over blocks and languages. Energy lost: squared error of what a pruned block adds to "
        "its dense input, over the square of what the dense block adds; drift: squared error of the hidden states "
        "behind a block, pruned blocks before it included; both without the first token of a sequence. Rank "
        "correlation: Spearman, of the languages' activation profiles; mask overlap: intersection over union of what "
        "single calibration languages would keep. Neurons by LAPE; weights lost: share of the non-zero weights into "
        "and out of them."
    )
    return ["", "## Inside", "", render.plain(table), note]


def _tables(
    every: Sequence[Configuration], found: Sequence[Section], blocks: "DataFrame", overlaps: "DataFrame"
) -> dict[str, "DataFrame"]:
    """Return what is written as CSV beside the tidy frame, by the name of the file."""
    import pandas

    summaries = [each.summary() for each in found] or [pandas.DataFrame(columns=list(SUMMARY))]
    tables = {"summary.csv": pandas.concat(summaries), "layers.csv": blocks}
    return tables | ({} if overlaps.empty else {"mask_overlap.csv": overlaps}) | _inside(every)


def _inside(every: Sequence[Configuration]) -> dict[str, "DataFrame"]:
    """Return the tables of one name of all runs as one, as their text has them."""
    import pandas

    found: dict[str, list[DataFrame]] = {}
    for each in every:
        for run in each.runs:
            for name in INSIDE:
                path = run.file(f"{FOLDER}/{name}.csv")
                if path is not None:
                    table = pandas.read_csv(path, dtype=str, keep_default_na=False)
                    own = {"run": run.name, "configuration": each.label, "seed": run.seed}
                    found.setdefault(name, []).append(table.assign(**own)[[*own, *INSIDE[name]]])
    return {f"inside_{name}.csv": pandas.concat(found[name]) for name in INSIDE if name in found}


def _three(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
