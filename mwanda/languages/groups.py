"""Groups of languages over which results are aggregated: family, script, resource level, seen in calibration or not."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from mwanda.languages.table import Language


GROUPINGS: dict[str, Callable[[Language], str]] = {
    "family": lambda language: language.family,
    "script": lambda language: language.script,
    "resource_level": lambda language: language.resource_level,
}

SEEN, UNSEEN = "seen", "unseen"
"""Languages whose text calibrated the pruning, and the others."""


def labels(languages: Sequence[Language], grouping: str) -> dict[str, str]:
    """Return the group of each language by its code; `grouping` is a key of `GROUPINGS`."""
    return {language.code: GROUPINGS[grouping](language) for language in languages}


def calibrated(tokens_per_language: Mapping[str, int]) -> frozenset[str]:
    """Return the languages that gave at least one token of calibration text."""
    return frozenset(code for code, tokens in tokens_per_language.items() if tokens)


def calibration_labels(codes: Iterable[str], seen: Collection[str]) -> dict[str, str]:
    """Return `seen` or `unseen` for each language."""
    return {code: SEEN if code in seen else UNSEEN for code in codes}


def members(labels: Mapping[str, str], codes: Iterable[str]) -> dict[str, list[str]]:
    """Return the languages of each group, groups in the order of `codes`; languages without a group are left out."""
    groups: dict[str, list[str]] = {}
    for code in codes:
        if code in labels:
            groups.setdefault(labels[code], []).append(code)
    return groups
