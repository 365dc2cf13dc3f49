"""The tidy frame to the table that compares configurations; no file is read here."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mwanda.comparison.configurations import FIRST, Configuration, common, language_of, matches, told_apart
from mwanda.comparison.records import OF_THE_METHOD, Run, Settings
from mwanda.comparison.tidy import by_language, numbers
from mwanda.errors import ConfigurationError
from mwanda.languages import Language
from mwanda.languages.groups import GROUPINGS as KNOWN
from mwanda.languages.groups import members
from mwanda.languages.table import UNKNOWN


if TYPE_CHECKING:
    from pandas import DataFrame, Series

BASELINE: Settings = {"criterion": "wanda", "solver": "threshold", "schedule": "uniform"}

METRICS = ("dense_perplexity", "pruned_perplexity", "ratio", "significantly_hurt")
SUMMARY = ("protocol", "configuration", "column", "mean", "standard_deviation", "n")

GROUPINGS: dict[str, Callable[[Language], str]] = {
    "language": lambda language: language.code,
    **{name: KNOWN[name] for name in ("resource_level", "family", "script")},
}

MOST_COLUMNS = 8


@dataclass(frozen=True, eq=False)
class Section:
    """Configurations that were measured by one protocol on one text.

    Args:
        protocol: hash, name and text.
        languages: that all of them have.
        left_out: that only some of them have.
        groups: languages by the heading of their column.
        configurations: what is compared, named by what varies here; their places are the rows of what follows.
        names: what files that hold all protocols call them.
        means: over seeds, a column each; no number where it cannot be said.
        deviations: over seeds likewise; no number of one seed.
        seeds: how many there are behind each.
        worst: the worst-hit languages, of each seed.
        ratios: of each seed and language.
        pruned: perplexity of each seed and language.
        baseline: which of them the others are compared with, or None.
    """

    protocol: tuple[str, str, str]
    languages: tuple[str, ...]
    left_out: tuple[str, ...]
    groups: dict[str, tuple[str, ...]]
    configurations: list[Configuration]
    names: list[str]
    means: "DataFrame"
    deviations: "DataFrame"
    seeds: "DataFrame"
    worst: list[str]
    ratios: "DataFrame"
    pruned: "DataFrame"
    baseline: Settings | None

    @property
    def measured_on(self) -> str:
        """Text and protocol, as a heading names them."""
        digest, name, text = self.protocol
        return f"{text} ({name} {digest})"

    @property
    def common(self) -> str:
        """What all of its runs share, and no name says."""
        return common(self.configurations)

    def summary(self) -> "DataFrame":
        """Return its numbers, a row for each configuration and column."""
        import pandas

        numbers = {"mean": self.means, "standard_deviation": self.deviations, "n": self.seeds}
        long = pandas.concat({name: each.stack() for name, each in numbers.items()}, axis="columns")
        long = long.dropna(subset=["mean"]).rename_axis(["configuration", "column"]).reset_index()
        names = dict(enumerate(self.names))
        long = long.assign(protocol=self.protocol[0], configuration=long["configuration"].map(names))
        long["column"] = long["column"].str.removeprefix("group:")
        return long.astype({"n": int})[list(SUMMARY)]


def sections(
    every: Sequence[Configuration], frame: "DataFrame", baseline: Settings | None, grouping: str | None = None
) -> list[Section]:
    """Return a table for each protocol: numbers of different protocols are never in one.

    Args:
        every: configurations of finished runs.
        frame: the tidy frame of them.
        baseline: settings of the configurations to compare with; None for Wanda with uniform sparsity, if there.
        grouping: the columns of languages, a key of `GROUPINGS`; None for the finest that is readable.

    Raises:
        ConfigurationError: no run is what `baseline` says.
    """
    runs = sorted((run for one in every for run in one.runs), key=lambda run: run.name)
    check_baseline(runs, baseline)
    metrics = {name: by_language(frame, name) for name in METRICS}
    metrics["calibrated"] = by_language(frame, "ratio", "calibrated")
    found = []
    for protocol in dict.fromkeys(run.protocol for run in runs if run.protocol is not None):
        parts = [
            Configuration(each.settings, tuple(run for run in each.runs if run.protocol == protocol)) for each in every
        ]
        parts = [each for each in parts if each.runs]
        found.append(_section(protocol, parts, numbers(every), metrics, baseline, grouping))
    return found


def check_baseline(runs: Sequence[Run], baseline: Settings | None) -> None:
    """Raise ConfigurationError where no run is what `baseline` says."""
    for key, value in (baseline or {}).items():
        there = sorted({run.settings[key] for run in runs if key in run.settings})
        if not there:
            known = [*FIRST, *(name for run in runs for name in run.settings if name not in FIRST)]
            raise ConfigurationError("--baseline", f"{key}={value}", f"no run has a setting '{key}'", known)
        if value not in there:
            raise ConfigurationError(
                "--baseline", f"{key}={value}", "no run has it", [f"{key}={each}" for each in there]
            )


def partners(every: Sequence[Configuration], baseline: Settings | None) -> list[Configuration | None]:
    """Return, for each configuration, the one with the baseline's settings and otherwise its own; None for itself.

    Where there is none whose calibration text counts the same, it is that in which it counts as it does by itself.
    """
    if baseline is None:
        return [None] * len(every)
    replaced = (*baseline, *(f"{key}." for key in baseline))

    def rest(one: Configuration, *less: str) -> frozenset[tuple[str, str]]:
        own = {key: value for key, value in one.settings.items() if not key.startswith(replaced)}
        return frozenset((key, value) for key, value in own.items() if key not in less)

    exact: dict[frozenset[tuple[str, str]], Configuration] = {}
    plain: dict[frozenset[tuple[str, str]], Configuration] = {}
    for each in every:
        if matches(each, baseline):
            exact.setdefault(rest(each), each)
            if not each.runs[0].settings.keys() & set(OF_THE_METHOD):
                plain.setdefault(rest(each, *OF_THE_METHOD), each)

    def partner(one: Configuration) -> Configuration | None:
        choices = exact.get(rest(one)), plain.get(rest(one, *OF_THE_METHOD))
        return next((other for other in choices if other is not None and other is not one), None)

    return [partner(each) for each in every]


def _section(
    protocol: tuple[str, str, str],
    every: list[Configuration],
    places: Mapping[int, int],
    metrics: Mapping[str, "DataFrame"],
    baseline: Settings | None,
    grouping: str | None,
) -> Section:
    import pandas

    # Of runs with the same seed the last one counts.
    own = {(at, run.seed): places[id(run)] for at, each in enumerate(every) for run in each.runs}
    index = pandas.MultiIndex.from_tuples(own, names=["configuration", "seed"])
    by_seed = {name: each.reindex(list(own.values())).set_axis(index) for name, each in metrics.items()}
    measured = by_seed["ratio"].dropna(axis="columns", how="all").columns
    languages = tuple(by_seed["ratio"].dropna(axis="columns").columns)
    by_seed = {name: each.reindex(columns=list(languages)) for name, each in by_seed.items()}
    groups = _groups(languages, grouping)
    values = _values(by_seed, groups)
    wanted = baseline if baseline is not None else BASELINE
    found = wanted if any(matches(each, wanted) for each in every) else None
    named, names = told_apart(every), [each.label for each in every]
    means, deviations, seeds = (
        pandas.concat(each, axis="columns").reindex(range(len(every)))
        for each in zip(over_seeds(values), over_seeds(_excess(values["pruned"], every, found)), strict=True)
    )
    return Section(
        protocol, languages, tuple(sorted({*measured} - {*languages})), groups, named, names, means, deviations, seeds,
        _worst(by_seed["ratio"]), by_seed["ratio"], by_seed["pruned_perplexity"], found,
    )  # fmt: skip


def _values(by_seed: Mapping[str, "DataFrame"], groups: Mapping[str, Sequence[str]]) -> "DataFrame":
    """Return the columns of a table, a row for each configuration and seed."""
    import pandas

    ratio, hurt = by_seed["ratio"], by_seed["significantly_hurt"]
    seen = by_seed["calibrated"].eq(True)
    lowest = ratio.min(axis="columns")
    columns = {
        "dense": geometric_mean(by_seed["dense_perplexity"]),
        "pruned": geometric_mean(by_seed["pruned_perplexity"]),
        "ratio": geometric_mean(ratio),
        "worst": ratio.max(axis="columns"),
        "spread": ratio.max(axis="columns") / lowest.where(lowest < math.inf),
        "hurt": hurt.mean(axis="columns", skipna=False),
        "seen": geometric_mean(ratio.where(seen)),
        "unseen": geometric_mean(ratio.where(~seen)),
        **{f"group:{name}": geometric_mean(ratio[list(codes)]) for name, codes in groups.items()},
    }
    return pandas.DataFrame(columns, dtype="float64")


def geometric_mean(values: "DataFrame") -> "Series":
    """Return the geometric mean over the columns; no number where there is none."""
    import numpy as np

    return np.exp(np.log(values.astype("float64")).mean(axis="columns"))


def over_seeds(values: "DataFrame") -> tuple["DataFrame", "DataFrame", "DataFrame"]:
    """Return means, sample deviations and numbers of seeds; no number where a seed has none."""
    grouped = values.groupby(level="configuration")
    seeds = grouped.count()
    complete = seeds.eq(grouped.size(), axis="index")
    return grouped.mean().where(complete), grouped.std().where(complete), seeds


def _excess(pruned: "Series", every: Sequence[Configuration], baseline: Settings | None) -> "DataFrame":
    """Return by how much the geometric mean of the pruned perplexities exceeds the baseline's, seed by seed."""
    import pandas

    place = {id(each): at for at, each in enumerate(every)}
    others = [place.get(id(other), -1) for other in partners(every, baseline)]
    theirs = pandas.MultiIndex.from_tuples([(others[at], seed) for at, seed in pruned.index])
    against = pruned.reindex(theirs).set_axis(pruned.index)
    excess = pruned / against.where(against < math.inf) - 1
    return excess[theirs.isin(pruned.index)].to_frame("baseline")


def _worst(ratio: "DataFrame") -> list[str]:
    """Return the worst-hit languages of each configuration, a name once."""
    if ratio.empty:
        return [""] * ratio.index.get_level_values("configuration").nunique()
    worst = ratio.idxmax(axis="columns").groupby(level="configuration")
    return ["/".join(dict.fromkeys(each)) for _, each in worst]


def _groups(languages: Sequence[str], grouping: str | None) -> dict[str, tuple[str, ...]]:
    """Return the languages by the heading of their column."""
    if grouping is not None:
        return _by(languages, grouping)
    candidates = [_by(languages, each) for each in GROUPINGS]
    return next((each for each in candidates if 1 < len(each) <= MOST_COLUMNS), {})


def _by(languages: Sequence[str], grouping: str) -> dict[str, tuple[str, ...]]:
    known = {code: language_of(code) for code in languages}
    labels = {code: GROUPINGS[grouping](language) if language else UNKNOWN for code, language in known.items()}
    return {name: tuple(codes) for name, codes in members(labels, languages).items()}
