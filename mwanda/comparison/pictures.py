"""Which pictures a comparison has, and what is in them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mwanda.comparison import plots
from mwanda.comparison.configurations import Configuration, language_of, matches, name_of
from mwanda.comparison.plots import Dots, Series
from mwanda.comparison.records import Run
from mwanda.comparison.statistics import Estimate
from mwanda.comparison.tables import Section, partners
from mwanda.comparison.tidy import task_scores
from mwanda.evaluation.task_scores import headline
from mwanda.languages.ratios import geometric_mean, ratio


Picture = tuple[str, str]
"""File name and caption."""

MOST_PANELS = 6
LARGEST_GRID = 40
MOST_STRIPS = 40
"""Configurations that one picture can hold; report.html has all of them."""


def draw(
    every: Sequence[Configuration], found: Sequence[Section], overlaps: Sequence[Mapping[str, Any]], folder: Path
) -> list[Picture]:
    """Draw everything that these runs have enough for, and return what was drawn."""
    drawn: list[Picture] = []
    for place, section in enumerate(found):
        suffix = f"_{section.protocol[0]}" if place else ""
        drawn += _ablation(section, folder, suffix)
        drawn += _by_language(section, folder, suffix)
        drawn += _curves(section, folder, suffix)
    return [
        *drawn,
        *_tasks(every, folder),
        *_layers(every, folder),
        *_overlap(overlaps, folder),
        *_inside(every, folder),
    ]


def _ablation(section: Section, folder: Path, suffix: str) -> list[Picture]:
    rows: list[tuple[Configuration, Estimate]] = []
    reference = None
    for row in section.rows:
        ratio = row.values["ratio"]
        if ratio is None:
            continue
        rows.append((row.configuration, ratio))
    if section.baseline is not None:
        centres = [
            row.values["ratio"].mean
            for row in section.rows
            if row.values["ratio"] and matches(row.configuration, section.baseline)
        ]
        reference = centres[0] if len(centres) == 1 else None
    dots = [
        Dots(each.label, {code: _mean_ratio(each, code) for code in section.languages}, ratio.mean, ratio.deviation)
        for each, ratio in sorted(rows, key=lambda row: row[1].mean)[:MOST_STRIPS]
    ]
    title = f"Perplexity after pruning over before, {len(section.languages)} languages"
    best = f" (the {MOST_STRIPS} best of {len(rows)})" if len(rows) > MOST_STRIPS else ""
    caption = f"Perplexity ratio of every language, by configuration{best}"
    axis = "pruned ÷ dense perplexity (logarithmic; 1 = nothing lost)"
    return [(plots.strip(dots, title, axis, folder, f"ratios{suffix}", reference), caption)] if rows else []


def _by_language(section: Section, folder: Path, suffix: str) -> list[Picture]:
    """Draw languages by configurations: against the baseline where there is one, else against the dense model."""
    every = [row.configuration for row in section.rows]
    if len(every) < 2 or len(every) > LARGEST_GRID:
        return []
    order = sorted(section.languages, key=_place)
    against = {each.label: other for each, other in zip(every, partners(every, section.baseline), strict=True)}
    others = [each for each in every if against[each.label] is not None]
    if others:
        values = {
            _name(code): {each.label: _percent(each, against[each.label], code) for each in others} for code in order
        }
        title, axis = "Perplexity against the baseline", "pruned perplexity against the baseline's, % (orange = worse)"
    else:
        others = every
        values = {_name(code): {each.label: _mean_ratio(each, code) for each in every} for code in order}
        title, axis = "Perplexity after pruning over before", "pruned ÷ dense perplexity"
    columns = [each.label for each in others]
    name = plots.heatmap(
        values, columns, title, axis, folder, f"languages{suffix}",
        diverging=others is not every, numbers=len(columns) * len(order) <= 1200,
    )  # fmt: skip
    return [(name, f"{title}, by language (grouped by family)")]


def _curves(section: Section, folder: Path, suffix: str) -> list[Picture]:
    """Draw every language over sparsity, where sparsity varies."""
    panels: dict[str, Series] = {}
    means: dict[str, dict[float, float]] = {}
    for row in section.rows:
        sparsity = row.configuration.settings.get("sparsity")
        if sparsity is None:
            return []
        panel = name_of(row.configuration.without("sparsity")) or "all runs"
        lines, x = panels.setdefault(panel, {}), float(sparsity)
        for code in section.languages:
            lines.setdefault(code, {0.0: 1.0})[x] = _mean_ratio(row.configuration, code)
        if row.values["ratio"]:
            means.setdefault(panel, {0.0: 1.0})[x] = row.values["ratio"].mean
    panels = dict(list(panels.items())[:MOST_PANELS])
    title = f"Perplexity over sparsity, {len(section.languages)} languages"
    name = plots.curves(
        panels,
        title,
        "sparsity",
        "pruned ÷ dense perplexity",
        folder,
        f"sparsity{suffix}",
        logarithmic=True,
        means=means,
        mean_name="geometric mean",
    )
    return [(name, "Perplexity ratio of every language, by sparsity (black: geometric mean)")]


def _tasks(every: Sequence[Configuration], folder: Path) -> list[Picture]:
    """Draw task scores over sparsity, a panel for each suite and configuration; without several sparsities nothing."""
    panels: dict[str, Series] = {}
    errors: dict[str, dict[str, dict[float, float]]] = {}
    for configuration in every:
        rest = name_of(configuration.without("sparsity"))
        run = configuration.runs[0]
        x = float(run.settings["sparsity"])
        for (suite, metric), tasks in task_scores(run, headline).items():
            panel = f"{suite}, {metric}" + (f"\n{rest}" if rest else "")
            for task, score in tasks.items():
                line = score.language or task
                for place, (value, error) in ((0.0, score.dense), (x, score.pruned)):
                    if value is not None:
                        panels.setdefault(panel, {}).setdefault(line, {})[place] = value
                        errors.setdefault(panel, {}).setdefault(line, {})[place] = error or 0.0
    panels = {name: lines for name, lines in panels.items() if any(len(line) > 2 for line in lines.values())}
    if not panels:
        return []
    panels = dict(list(panels.items())[:MOST_PANELS])
    means = {name: _mean_line(lines) for name, lines in panels.items()}
    chance = {_chance(configuration) for configuration in every} - {None}
    reference = (chance.pop() or 0.0, "chance") if len(chance) == 1 else None
    name = plots.curves(
        panels, "Task scores over sparsity (0 = dense; bands are ± one standard error)", "sparsity", "score",
        folder, "tasks", means=means, errors=errors, reference=reference,
    )  # fmt: skip
    return [(name, "Task scores by sparsity (first seed)")]


def _layers(every: Sequence[Configuration], folder: Path) -> list[Picture]:
    lines: Series = {}
    for each in every:
        layers = each.runs[0].results["sparsity"]["per_layer"]
        lines[each.label] = {float(layer["layer"]): round(layer["achieved"], 4) for layer in layers}
    lines = _merged(lines)
    name = plots.curves({"": lines}, "Sparsity of each block", "block", "share of zero weights", folder, "layers")
    return [(name, "Sparsity by block")]


def _overlap(overlaps: Sequence[Mapping[str, Any]], folder: Path) -> list[Picture]:
    if not overlaps:
        return []
    lines: Series = {}
    for row in overlaps:
        lines.setdefault(f"{row['configuration']} / {row['other']}", {})[row["layer"]] = row["intersection_over_union"]
    chance = sum(row["by_chance"] for row in overlaps) / len(overlaps)
    name = plots.curves(
        {"": lines}, "Overlap of the masks of two runs", "block", "kept weights: intersection over union",
        folder, "mask_overlap", reference=(chance, "independent masks"),
    )  # fmt: skip
    return [(name, "Mask overlap between configurations, by block")]


def _inside(every: Sequence[Configuration], folder: Path) -> list[Picture]:
    looked = {each.label: each.runs[0] for each in every if each.runs[0].results.get("inside")}
    if not looked:
        return []
    drawn = []
    titles = {
        "energy_lost": ("energy_lost", "Activation energy lost in each block", "share of what the block adds"),
        "drift": ("drift", "Drift of the hidden states behind each block", "squared error ÷ square"),
        "rank_correlation": ("profiles", "Rank correlation of languages' activation profiles", "Spearman's ρ"),
        "intersection_over_union": ("masks", "Overlap of single languages' masks", "intersection over union"),
    }
    for key, (name, title, axis) in titles.items():
        lines = {label: _layer_line(run.results["inside"], key) for label, run in looked.items()}
        lines = {label: line for label, line in lines.items() if line}
        if lines:
            file = plots.curves({"": lines}, f"{title}\n(mean over languages)", "block", axis, folder, f"inside_{name}")
            drawn.append((file, title))
    for place, (label, run) in enumerate(list(looked.items())[:MOST_PANELS]):
        inside = run.results["inside"]
        drawn += _neurons(inside, label, folder, place)
        drawn += _energy(run, label, folder, place)
    return drawn


def _energy(run: Run, label: str, folder: Path, place: int) -> list[Picture]:
    import csv

    path = run.file("inside/energy.csv")
    if path is None:
        return []
    values: dict[str, dict[str, float]] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            values.setdefault(row["language"], {})[row["layer"]] = float(row["energy_lost"] or "nan")
    ordered = {
        _name(code): {layer: 100 * share for layer, share in values[code].items()}
        for code in sorted(values, key=_place)
    }
    columns = list(next(iter(values.values())))
    title = f"Activation energy lost\n{label}"
    name = plots.heatmap(
        ordered, columns, title, "% of what the dense block adds", folder, f"inside_energy_{place}",
        diverging=False, numbers=False, below="block",
    )  # fmt: skip
    return [(name, f"Activation energy lost by language and block: {label}")]


def _neurons(inside: Mapping[str, Any], label: str, folder: Path, place: int) -> list[Picture]:
    rows = {
        _name(code): (float(each["neurons"]), each["neurons_weights_lost"])
        for code, each in inside["per_language"].items()
        if each["neurons"] and each["neurons_weights_lost"] is not None
    }
    if not rows or not inside.get("neurons"):
        return []
    name = plots.paired_bars(
        rows, f"Language-specific neurons (LAPE)\n{label}", ("neurons", "their weights that pruning took, %"),
        folder, f"inside_neurons_{place}", inside["neurons"]["weights_lost"],
    )  # fmt: skip
    return [(name, f"Language-specific neurons and their lost weights: {label}")]


def _merged(lines: Series) -> Series:
    """Return lines that lie on each other as one with all their names."""
    names: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for name, values in lines.items():
        names.setdefault(tuple(sorted(values.items())), []).append(name)
    return {" = ".join(those[:4]) + (" = …" if len(those) > 4 else ""): dict(line) for line, those in names.items()}


def _layer_line(inside: Mapping[str, Any], key: str) -> dict[float, float]:
    return {float(layer["layer"]): layer[key] for layer in inside["per_layer"] if layer[key] is not None}


def _mean_ratio(configuration: Configuration, code: str) -> float:
    """Return a language's geometric mean of the ratio over seeds."""
    return geometric_mean(one[code].ratio for one in configuration.by_seed.values())


def _percent(configuration: Configuration, other: Configuration | None, code: str) -> float:
    assert other is not None
    first, second = configuration.by_seed, other.by_seed
    pairs = [(first[seed][code].pruned, second[seed][code].pruned) for seed in first if seed in second]
    if not pairs or any(math.isinf(theirs) for _, theirs in pairs):
        return math.nan
    return 100 * (geometric_mean(ratio(theirs, mine) for mine, theirs in pairs) - 1)


def _mean_line(lines: Series) -> dict[float, float]:
    shared = set.intersection(*(set(line) for line in lines.values()))
    return {x: sum(line[x] for line in lines.values()) / len(lines) for x in sorted(shared)}


def _chance(configuration: Configuration) -> float | None:
    """Return the score of guessing, where all tasks of a run have the same one."""
    about = ((configuration.runs[0].results.get("tasks") or {}).get("about") or {}).values()
    values = {each.get("chance") for each in about}
    return values.pop() if len(values) == 1 else None


def _place(code: str) -> tuple[str, str]:
    language = language_of(code)
    return (language.family, code) if language else ("", code)


def _name(code: str) -> str:
    language = language_of(code)
    return f"{language.name} ({code})" if language and len(language.name) <= 24 else code
