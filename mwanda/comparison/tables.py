"""Records of runs to rows: configurations, the tidy table, and the table that compares them; no file is read here."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mwanda.comparison.configurations import FIRST, Configuration, configurations, language_of, matches
from mwanda.comparison.records import Run, Settings
from mwanda.comparison.statistics import (
    Estimate,
    over_seeds,
    share_hurt,
    spread,
)
from mwanda.errors import ConfigurationError
from mwanda.languages import Language
from mwanda.languages.groups import GROUPINGS as KNOWN
from mwanda.languages.groups import SEEN, UNSEEN, calibration_labels, members
from mwanda.languages.ratios import geometric_mean, ratio
from mwanda.languages.table import UNKNOWN


BASELINE: Settings = {"criterion": "wanda", "solver": "threshold", "schedule": "uniform"}

Row = dict[str, Any]

GROUPINGS: dict[str, Callable[[Language], str]] = {
    "language": lambda language: language.code,
    **{name: KNOWN[name] for name in ("resource_level", "family", "script")},
}

MOST_COLUMNS = 8


@dataclass(frozen=True)
class Summary:
    """What one configuration comes to over the languages that all of a table have.

    Args:
        configuration: which.
        values: by the name of the column; None where it cannot be said.
        worst_languages: of each seed.
    """

    configuration: Configuration
    values: dict[str, Estimate | None]
    worst_languages: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """Configurations that were measured by one protocol on one text.

    Args:
        protocol: hash, name and text.
        languages: that all of them have.
        left_out: that only some of them have.
        groups: languages by the heading of their column.
        rows: a configuration each.
        baseline: which of them the others are compared with, or None.
    """

    protocol: tuple[str, str, str]
    languages: tuple[str, ...]
    left_out: tuple[str, ...]
    groups: dict[str, tuple[str, ...]]
    rows: list[Summary]
    baseline: Settings | None


def sections(runs: Sequence[Run], baseline: Settings | None, grouping: str | None = None) -> list[Section]:
    """Return a table for each protocol: numbers of different protocols are never in one.

    Args:
        runs: finished ones.
        baseline: settings of the configurations to compare with; None for Wanda with uniform sparsity, if there.
        grouping: the columns of languages, a key of `GROUPINGS`; None for the finest that is readable.

    Raises:
        ConfigurationError: no run is what `baseline` says.
    """
    check_baseline(runs, baseline)
    every = configurations(runs)
    protocols = list(dict.fromkeys(run.protocol for run in runs if run.protocol is not None))
    found = []
    for protocol in protocols:
        parts = [
            Configuration(each.settings, tuple(run for run in each.runs if run.protocol == protocol)) for each in every
        ]
        found.append(_section(protocol, [each for each in parts if each.runs], baseline, grouping))
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
    """Return, for each configuration, the one with the baseline's settings and otherwise its own; None for itself."""
    if baseline is None:
        return [None] * len(every)
    replaced = (*baseline, *(f"{key}." for key in baseline))

    def rest(one: Configuration) -> frozenset[tuple[str, str]]:
        return frozenset((key, value) for key, value in one.settings.items() if not key.startswith(replaced))

    there: dict[frozenset[tuple[str, str]], Configuration] = {}
    for each in every:
        if matches(each, baseline):
            there.setdefault(rest(each), each)
    found = [there.get(rest(each)) for each in every]
    return [None if other is each else other for each, other in zip(every, found, strict=True)]


def _section(
    protocol: tuple[str, str, str], every: Sequence[Configuration], baseline: Settings | None, grouping: str | None
) -> Section:
    measured = [seed for each in every for seed in each.by_seed.values()]
    shared = set.intersection(*(set(one) for one in measured))
    languages = tuple(code for code in measured[0] if code in shared)
    left_out = tuple(sorted({code for one in measured for code in one} - shared))
    wanted = baseline if baseline is not None else BASELINE
    found = wanted if any(matches(each, wanted) for each in every) else None
    groups = _groups(languages, grouping)
    others = partners(every, found)
    rows = [_summary(each, other, languages, groups) for each, other in zip(every, others, strict=True)]
    return Section(protocol, languages, left_out, groups, rows, found)


def _summary(
    configuration: Configuration,
    baseline: Configuration | None,
    languages: Sequence[str],
    groups: Mapping[str, Sequence[str]],
) -> Summary:
    by_seed = [{code: one[code] for code in languages} for one in configuration.by_seed.values()]
    by_calibration = members(calibration_labels(languages, configuration.calibrated()), languages)

    def mean_ratio(codes: Sequence[str]) -> Estimate | None:
        return over_seeds(geometric_mean(one[code].ratio for code in codes) for one in by_seed)

    values = {
        "dense": over_seeds(geometric_mean(one[code].dense for code in languages) for one in by_seed),
        "pruned": over_seeds(geometric_mean(one[code].pruned for code in languages) for one in by_seed),
        "ratio": mean_ratio(languages),
        "worst": over_seeds(max((change.ratio for change in one.values()), default=None) for one in by_seed),
        "spread": over_seeds(spread(list(one.values())) for one in by_seed),
        "hurt": over_seeds(share_hurt(list(one.values())) for one in by_seed),
        "seen": mean_ratio(by_calibration.get(SEEN, [])),
        "unseen": mean_ratio(by_calibration.get(UNSEEN, [])),
        "baseline": _against(configuration, baseline, languages),
        **{f"group:{name}": mean_ratio(codes) for name, codes in groups.items()},
    }
    worst = tuple(max(one, key=lambda code: one[code].ratio) for one in by_seed if one)
    return Summary(configuration, values, worst)


def _against(configuration: Configuration, other: Configuration | None, languages: Sequence[str]) -> Estimate | None:
    """Return by how much the geometric mean of the pruned perplexities exceeds the baseline's, seed by seed."""
    if other is None:
        return None
    seeds = [seed for seed in configuration.by_seed if seed in other.by_seed]

    def excess(seed: str) -> float | None:
        mine, theirs = (
            geometric_mean(one.by_seed[seed][code].pruned for code in languages) for one in (configuration, other)
        )
        return None if math.isinf(theirs) else ratio(theirs, mine) - 1

    return over_seeds(excess(seed) for seed in seeds)


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
