"""Runs become configurations: what varies between them, and which are repetitions with other seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from mwanda.comparison.records import OF_THE_METHOD, Run, Settings
from mwanda.errors import ConfigurationError
from mwanda.languages import Language, find
from mwanda.languages.groups import calibrated


FIRST = ("model", "criterion", "solver", "schedule", "pattern", "sparsity")
"""What a configuration is named by, in this order, where it varies."""

NAMED = ("model", "criterion", "solver", "schedule", "pattern")
"""Groups whose further keys only mean something beside the name of the choice."""

FALLBACK = ("criterion", "schedule", "sparsity")


@dataclass(frozen=True)
class Configuration:
    """Runs that differ in nothing but the seed.

    Args:
        settings: those that tell it from the others.
        runs: in the order of their seeds.
    """

    settings: Settings
    runs: tuple[Run, ...]

    @cached_property
    def label(self) -> str:
        """What tables and pictures call it."""
        return name_of(self.settings)

    def without(self, key: str) -> Settings:
        """Return its settings but one."""
        return {name: value for name, value in self.settings.items() if name != key}

    def calibrated(self) -> frozenset[str]:
        """Return the languages whose text calibrated the pruning."""
        return calibrated(self.runs[0].results.get("calibration", {}).get("tokens_per_language", {}))


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


def told_apart(every: Sequence[Configuration]) -> list[Configuration]:
    """Return configurations named by what varies among these alone, or as they were where that tells too little.

    How much calibration text counts is part of a name only where nothing else tells methods apart.
    """
    varies = varying([each.settings for each in every])
    for keys in ([key for key in varies if key not in OF_THE_METHOD], varies):
        named = [{key: value for key, value in each.settings.items() if key in keys} for each in every]
        if keys and len(set(map(name_of, named))) == len(every):
            return [Configuration(settings, each.runs) for settings, each in zip(named, every, strict=True)]
    return list(every)


def common(every: Sequence[Configuration]) -> str:
    """Return what all runs share of that by which a configuration is named."""
    values = {key: {run.settings[key] for each in every for run in each.runs} for key in FIRST}
    return ", ".join(f"{key} {each}" for key, those in values.items() if len(those) == 1 for each in those)


def repeated(configuration: Configuration) -> list[str]:
    """Return seeds that a configuration holds twice: repeated runs are not independent."""
    seeds = [run.seed for run in configuration.runs]
    return sorted({seed for seed in seeds if seeds.count(seed) > 1})


def language_of(code: str) -> Language | None:
    """Return what is known of a language; None of a code that is none."""
    try:
        return find([code])[0]
    except ConfigurationError:
        return None


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
