"""Which pictures a comparison has, and what is in them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mwanda.comparison import plots
from mwanda.comparison.configurations import Configuration, language_of, matches, name_of
from mwanda.comparison.plots import Dots, Series
from mwanda.comparison.records import Run
from mwanda.comparison.tables import Section, partners
from mwanda.comparison.tidy import numbers, of_first_seed


if TYPE_CHECKING:
    from pandas import DataFrame

Picture = tuple[str, str]
"""File name and caption."""

MOST_PANELS = 6
LARGEST_GRID = 40
MOST_STRIPS = 40
"""Configurations that one picture can hold; report.html has all of them."""


def draw(
    every: Sequence[Configuration],
    found: Sequence[Section],
    scores: "DataFrame",
    blocks: "DataFrame",
    overlaps: "DataFrame",
    folder: Path,
) -> list[Picture]:
    """Draw everything that these runs have enough for, and return what was drawn."""
    drawn: list[Picture] = []
    first = of_first_seed(every, blocks)
    for place, section in enumerate(found):
        suffix = f"_{place + 1}" if place else ""
        own = [each for make in (_ablation, _by_language, _curves) for each in make(section, folder, suffix)]
        where = f": {section.measured_on}" if len(found) > 1 else ""
        drawn += [(name, caption + where) for name, caption in own]
    return [
        *drawn,
        *_tasks(every, scores, folder),
        *_layers(first, folder),
        *_overlap(overlaps, folder),
        *_inside(every, first, folder),
    ]


def _ablation(section: Section, folder: Path, suffix: str) -> list[Picture]:
    centres = section.means["ratio"].dropna()
    reference = None
    if section.baseline is not None:
        own = [mean for at, mean in centres.items() if matches(section.configurations[at], section.baseline)]
        reference = own[0] if len(own) == 1 else None
    ratios = _over_seeds(section.ratios)
    dots = [
        Dots(section.configurations[at].label, ratios.loc[at].to_dict(), mean, section.deviations.at[at, "ratio"])
        for at, mean in centres.sort_values(kind="stable").head(MOST_STRIPS).items()
    ]
    title = f"Perplexity after pruning over before, {len(section.languages)} languages"
    best = f" (the {MOST_STRIPS} best of {len(centres)})" if len(centres) > MOST_STRIPS else ""
    caption = f"Perplexity ratio of every language, by configuration{best}"
    axis = "pruned ÷ dense perplexity (logarithmic; 1 = nothing lost)"
    return [(plots.strip(dots, title, axis, folder, f"ratios{suffix}", reference), caption)] if dots else []


def _by_language(section: Section, folder: Path, suffix: str) -> list[Picture]:
    """Draw languages by configurations: against the baseline where there is one, else against the dense model."""
    every = section.configurations
    if len(every) < 2 or len(every) > LARGEST_GRID:
        return []
    others = partners(every, section.baseline)
    compared = any(other is not None for other in others)
    if compared:
        values = 100 * (_over_seeds(_against(section, others)) - 1)
        title, axis = "Perplexity against the baseline", "pruned perplexity against the baseline's, % (orange = worse)"
    else:
        values = _over_seeds(section.ratios)
        title, axis = "Perplexity after pruning over before", "pruned ÷ dense perplexity"
    values = values[sorted(section.languages, key=_place)].rename(_name, axis="columns")
    values.index = [every[at].label for at in values.index]
    name = plots.heatmap(
        values.T, title, axis, folder, f"languages{suffix}", diverging=compared, numbers=values.size <= 1200
    )
    return [(name, f"{title}, by language (grouped by family)")]


def _curves(section: Section, folder: Path, suffix: str) -> list[Picture]:
    """Draw every language over sparsity, where sparsity varies."""
    panels: dict[str, Series] = {}
    means: dict[str, dict[float, float]] = {}
    ratios = _over_seeds(section.ratios)
    for at, configuration in enumerate(section.configurations):
        sparsity = configuration.settings.get("sparsity")
        if sparsity is None:
            return []
        panel = name_of(configuration.without("sparsity")) or "all runs"
        lines, x = panels.setdefault(panel, {}), float(sparsity)
        for code, mean in ratios.loc[at].items():
            lines.setdefault(code, {0.0: 1.0})[x] = mean
        if not math.isnan(section.means.at[at, "ratio"]):
            means.setdefault(panel, {0.0: 1.0})[x] = section.means.at[at, "ratio"]
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


def _tasks(every: Sequence[Configuration], scores: "DataFrame", folder: Path) -> list[Picture]:
    """Draw task scores over sparsity, a panel for each suite and configuration; without several sparsities nothing."""
    panels: dict[str, Series] = {}
    errors: dict[str, dict[str, dict[float, float]]] = {}
    places = numbers(every)
    for configuration in every:
        rest = name_of(configuration.without("sparsity"))
        run = configuration.runs[0]
        x = float(run.settings["sparsity"])
        for score in scores[scores.index == places[id(run)]].itertuples():
            panel = f"{score.suite}, {score.metric}" + (f"\n{rest}" if rest else "")
            line = score.language or score.task
            points = ((0.0, score.dense, score.dense_error), (x, score.pruned, score.pruned_error))
            for place, value, error in points:
                if not math.isnan(value):
                    panels.setdefault(panel, {}).setdefault(line, {})[place] = value
                    errors.setdefault(panel, {}).setdefault(line, {})[place] = 0.0 if math.isnan(error) else error
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


def _layers(blocks: "DataFrame", folder: Path) -> list[Picture]:
    lines = _merged(_lines(blocks.round({"achieved": 3}), "achieved"))
    name = plots.curves({"": lines}, "Sparsity of each block", "block", "share of zero weights", folder, "layers")
    return [(name, "Sparsity by block")]


def _overlap(overlaps: "DataFrame", folder: Path) -> list[Picture]:
    if overlaps.empty:
        return []
    pairs = overlaps.assign(configuration=overlaps["configuration"] + " / " + overlaps["other"])
    name = plots.curves(
        {"": _lines(pairs, "intersection_over_union")}, "Overlap of the masks of two runs", "block",
        "kept weights: intersection over union", folder, "mask_overlap",
        reference=(float(overlaps["by_chance"].mean()), "independent masks"),
    )  # fmt: skip
    return [(name, "Mask overlap between configurations, by block")]


def _inside(every: Sequence[Configuration], blocks: "DataFrame", folder: Path) -> list[Picture]:
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
        lines = _lines(blocks, key)
        if lines:
            file = plots.curves({"": lines}, f"{title}\n(mean over languages)", "block", axis, folder, f"inside_{name}")
            drawn.append((file, title))
    for place, (label, run) in enumerate(list(looked.items())[:MOST_PANELS]):
        inside = run.results["inside"]
        drawn += _neurons(inside, label, folder, place)
        drawn += _energy(run, label, folder, place)
    return drawn


def _energy(run: Run, label: str, folder: Path, place: int) -> list[Picture]:
    import pandas

    path = run.file("inside/energy.csv")
    if path is None:
        return []
    energy = pandas.read_csv(path, dtype={"layer": str})
    shares = 100 * energy.pivot(index="language", columns="layer", values="energy_lost")
    shares = shares.loc[sorted(shares.index, key=_place), energy["layer"].unique()].rename(_name)
    title = f"Activation energy lost\n{label}"
    name = plots.heatmap(
        shares, title, "% of what the dense block adds", folder, f"inside_energy_{place}",
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


def _lines(blocks: "DataFrame", what: str) -> Series:
    """Return a line over the blocks for each configuration that has one."""
    known = blocks.dropna(subset=[what]).astype({"layer": float})
    lines = known.set_index("layer").groupby("configuration", sort=False)[what]
    return {str(name): line.to_dict() for name, line in lines}


def _over_seeds(values: "DataFrame") -> "DataFrame":
    """Return the geometric mean over seeds of every language, configurations by languages."""
    import numpy as np

    means = np.log(values).groupby(level="configuration").mean()
    return np.exp(means)


def _against(section: Section, others: Sequence[Configuration | None]) -> "DataFrame":
    """Return pruned perplexities over the baseline's, of the configurations that are compared with it."""
    place = {id(each): at for at, each in enumerate(section.configurations)}
    compared = section.pruned[[others[at] is not None for at, _ in section.pruned.index]]
    theirs = [(place[id(others[at])], seed) for at, seed in compared.index]
    against = section.pruned.reindex(theirs).set_axis(compared.index)
    return compared / against.where(against < math.inf)


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
