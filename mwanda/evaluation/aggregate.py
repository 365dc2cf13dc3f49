"""Aggregates of perplexities and of their ratios over all languages and groups of them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mwanda.evaluation.perplexity import LanguagePerplexity
from mwanda.evaluation.significance import Comparison, aggregate_pairs
from mwanda.languages import Language
from mwanda.languages.groups import GROUPINGS, calibration_labels, labels, members
from mwanda.languages.ratios import geometric_mean


def aggregate(measured: Mapping[str, LanguagePerplexity], languages: Sequence[Language]) -> dict[str, Any]:
    """Return geometric mean, mean and worst perplexity, and geometric means by family, script and resource level.

    The mean of the logarithms (the geometric mean) is what a ratio to the dense model can be taken of; the plain mean
    is ruled by the languages that were worst to begin with and is given because others give it.
    """
    values = {code: one.perplexity for code, one in measured.items()}
    worst = max(values, key=lambda code: values[code])
    return {
        "geometric_mean": geometric_mean(values.values()),
        "mean": sum(values.values()) / len(values),
        "worst": values[worst],
        "worst_language": worst,
        "mean_bits_per_byte": sum(one.bits_per_byte for one in measured.values()) / len(measured),
        **{f"by_{grouping}": _by(labels(languages, grouping), values) for grouping in GROUPINGS},
    }


def aggregate_change(comparison: Comparison, languages: Sequence[Language], seen: Collection[str]) -> dict[str, Any]:
    """Return what dense against pruned comes to: see `aggregate_pairs`; `by_calibration` is `seen` and `unseen`.

    Args:
        comparison: dense and pruned.
        languages: with their families, scripts and resource levels.
        seen: codes of the languages whose text calibrated the pruning.
    """
    groups = {f"by_{grouping}": labels(languages, grouping) for grouping in GROUPINGS}
    groups["by_calibration"] = calibration_labels(comparison.pairs, seen)
    return aggregate_pairs(comparison, groups)


def _by(groups: Mapping[str, str], values: Mapping[str, float]) -> dict[str, float]:
    measured = sorted(members(groups, values).items())
    return {name: geometric_mean(values[code] for code in codes) for name, codes in measured}
