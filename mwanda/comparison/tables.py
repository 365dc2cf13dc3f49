"""Records of runs to rows: configurations, the tidy table, and the table that compares them; no file is read here."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mwanda.comparison.records import Run, Settings
from mwanda.comparison.statistics import (
    Change,
    Estimate,
    changes,
    geometric_mean,
    over_seeds,
    share_hurt,
    spread,
)
from mwanda.errors import ConfigurationError
from mwanda.languages import Language, find


FIRST = ("model", "criterion", "solver", "schedule", "pattern", "sparsity")
"""What a configuration is named by, in this order, where it varies."""

NAMED = ("model", "criterion", "solver", "schedule", "pattern")
"""Groups whose further keys only mean something beside the name of the choice."""

FALLBACK = ("criterion", "schedule", "sparsity")
BASELINE: Settings = {"criterion": "wanda", "schedule": "uniform"}
Row = dict[str, Any]

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
GROUPINGS: dict[str, Callable[[Language], str]] = {
    "language": lambda language: language.code,
    "resource_level": lambda language: language.resource_level,
    "family": lambda language: language.family,
    "script": lambda language: language.script,
}
MOST_COLUMNS = 8


@dataclass(frozen=True)
class Configuration:
    """Runs that differ in nothing but the seed.

    Args:
        settings: those that tell it from the others.
        runs: in the order of their seeds.
    """

    settings: Settings
    runs: tuple[Run, ...]

    @property
    def label(self) -> str:
        """What tables and pictures call it."""
        return name_of(self.settings)

    def without(self, key: str) -> Settings:
        """Return its settings but one."""
        return {name: value for name, value in self.settings.items() if name != key}

    @cached_property
    def by_seed(self) -> dict[str, dict[str, Change]]:
        """The change of every language, by seed."""
        return {run.seed: changes(run.perplexity) for run in self.runs}

    def calibrated(self) -> set[str]:
        """Return the languages whose text calibrated the pruning."""
        return set(self.runs[0].results.get("calibration", {}).get("tokens_per_language", {}))


def name_of(settings: Settings) -> str:
    """Return a short name: values of the groups, and `key=value` of the rest."""
    plain = ", ".join(value for key, value in settings.items() if key in FIRST and key != "sparsity")
    rest = [f"{key.rpartition('.')[2]}={value or 'none'}" for key, value in settings.items() if key not in FIRST]
    return ", ".join(filter(None, [plain, settings.get("sparsity", ""), *rest]))


def configurations(runs: Sequence[Run]) -> list[Configuration]:
    """Return the runs by configuration, each named by the settings that vary (by three of them where none does)."""
    keys = varying([run.settings for run in runs]) or list(FALLBACK)
    groups: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        own = tuple((key, run.settings[key]) for key in keys if key in run.settings)
        groups.setdefault(own, []).append(run)
    made = [Configuration(dict(own), tuple(sorted(each, key=_seed))) for own, each in groups.items()]
    return sorted(made, key=lambda each: [_natural(value) for value in each.settings.values()])


def varying(settings: Sequence[Settings]) -> list[str]:
    """Return the keys whose values differ, those of a choice (`criterion.…`) only among runs of the same choice."""
    keys = list(dict.fromkeys([*FIRST, *(key for each in settings for key in each)]))
    found = []
    for key in keys:
        group = key.partition(".")[0]
        conditional = "." in key and group in NAMED
        values: dict[str, set[str | None]] = {}
        for each in settings:
            if key in each or not conditional:
                values.setdefault(each.get(group, "") if conditional else "", set()).add(each.get(key))
        if any(len(those) > 1 for those in values.values()):
            found.append(key)
    return found


def repeated(configuration: Configuration) -> list[str]:
    """Return seeds that a configuration holds twice: repeated runs are not independent."""
    seeds = [run.seed for run in configuration.runs]
    return sorted({seed for seed in seeds if seeds.count(seed) > 1})


# ---- the tidy table


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


def language_of(code: str) -> Language | None:
    """Return what is known of a language; None of a code that is none."""
    try:
        return find([code])[0]
    except ConfigurationError:
        return None


# ---- the table that compares configurations


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


def partner(configuration: Configuration, every: Sequence[Configuration], baseline: Settings) -> Configuration | None:
    """Return the configuration that has the baseline's settings and otherwise those of `configuration`."""

    def rest(one: Configuration) -> Settings:
        replaced = (*baseline, *(f"{key}." for key in baseline))
        return {key: value for key, value in one.settings.items() if not key.startswith(replaced)}

    candidates = [each for each in every if matches(each, baseline) and rest(each) == rest(configuration)]
    return candidates[0] if candidates else None


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
    rows = [_summary(each, every, languages, groups, found) for each in every]
    return Section(protocol, languages, left_out, groups, rows, found)


def _summary(
    configuration: Configuration,
    every: Sequence[Configuration],
    languages: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    baseline: Settings | None,
) -> Summary:
    by_seed = [{code: one[code] for code in languages} for one in configuration.by_seed.values()]
    calibrated = configuration.calibrated()
    seen = [code for code in languages if code in calibrated]
    unseen = [code for code in languages if code not in calibrated]

    def ratio(codes: Sequence[str]) -> Estimate | None:
        return over_seeds(geometric_mean(one[code].ratio for code in codes) for one in by_seed)

    values = {
        "dense": over_seeds(geometric_mean(one[code].dense for code in languages) for one in by_seed),
        "pruned": over_seeds(geometric_mean(one[code].pruned for code in languages) for one in by_seed),
        "ratio": ratio(languages),
        "worst": over_seeds(max((change.ratio for change in one.values()), default=None) for one in by_seed),
        "spread": over_seeds(spread(list(one.values())) for one in by_seed),
        "hurt": over_seeds(share_hurt(list(one.values())) for one in by_seed),
        "seen": ratio(seen),
        "unseen": ratio(unseen),
        "baseline": _against(configuration, every, languages, baseline),
        **{f"group:{name}": ratio(codes) for name, codes in groups.items()},
    }
    worst = tuple(max(one, key=lambda code: one[code].ratio) for one in by_seed if one)
    return Summary(configuration, values, worst)


def _against(
    configuration: Configuration,
    every: Sequence[Configuration],
    languages: Sequence[str],
    baseline: Settings | None,
) -> Estimate | None:
    """Return by how much the geometric mean of the pruned perplexities exceeds the baseline's, seed by seed."""
    other = partner(configuration, every, baseline) if baseline is not None else None
    if other is None or other is configuration:
        return None
    seeds = [seed for seed in configuration.by_seed if seed in other.by_seed]

    def excess(seed: str) -> float | None:
        mine, theirs = (
            geometric_mean(one.by_seed[seed][code].pruned for code in languages) for one in (configuration, other)
        )
        return None if mine is None or theirs is None or math.isinf(theirs) else mine / theirs - 1

    return over_seeds(excess(seed) for seed in seeds)


def _groups(languages: Sequence[str], grouping: str | None) -> dict[str, tuple[str, ...]]:
    """Return the languages by the heading of their column."""
    if grouping is not None:
        return _by(languages, grouping)
    candidates = [_by(languages, each) for each in GROUPINGS]
    return next((each for each in candidates if 1 < len(each) <= MOST_COLUMNS), {})


def _by(languages: Sequence[str], grouping: str) -> dict[str, tuple[str, ...]]:
    groups: dict[str, list[str]] = {}
    for code in languages:
        language = language_of(code)
        groups.setdefault(GROUPINGS[grouping](language) if language else "unknown", []).append(code)
    return {name: tuple(codes) for name, codes in groups.items()}


def matches(configuration: Configuration, settings: Settings) -> bool:
    """Return whether a configuration has these settings."""
    return all(configuration.runs[0].settings.get(key) == value for key, value in settings.items())


def _seed(run: Run) -> tuple[float, str]:
    return _natural(run.seed)


def _natural(text: str) -> tuple[float, str]:
    """Return what sorts numbers by their size, before text."""
    try:
        return float(text), text
    except ValueError:
        return math.inf, text


# ---- tasks


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
