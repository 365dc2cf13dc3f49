"""What perplexities per language, and their changes, come to over all languages and groups of them."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from mwanda.evaluation.perplexity import LanguagePerplexity
from mwanda.evaluation.significance import Comparison, aggregate_pairs, exponential
from mwanda.languages import Language


GROUPINGS: dict[str, Callable[[Language], str]] = {
    "by_family": lambda language: language.family,
    "by_script": lambda language: language.script,
    "by_resource_level": lambda language: language.resource_level,
}


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
        **{name: _by(languages, values, key) for name, key in GROUPINGS.items()},
    }


def aggregate_change(comparison: Comparison, languages: Sequence[Language], seen: Collection[str]) -> dict[str, Any]:
    """Return what dense against pruned comes to: see `aggregate_pairs`; `by_calibration` is `seen` and `unseen`.

    Args:
        comparison: dense and pruned.
        languages: with their families, scripts and resource levels.
        seen: codes of the languages whose text calibrated the pruning.
    """
    groups = {name: {each.code: key(each) for each in languages} for name, key in GROUPINGS.items()}
    groups["by_calibration"] = {code: "seen" if code in seen else "unseen" for code in comparison.pairs}
    return aggregate_pairs(comparison, groups)


def geometric_mean(values: Iterable[float]) -> float:
    """Return `exp` of the mean logarithm."""
    logarithms = [math.log(value) for value in values]
    return exponential(math.fsum(logarithms) / len(logarithms))


def _by(languages: Sequence[Language], values: Mapping[str, float], key: Callable[[Language], str]) -> dict[str, float]:
    groups: dict[str, list[float]] = {}
    for language in languages:
        if language.code in values:
            groups.setdefault(key(language), []).append(values[language.code])
    return {name: geometric_mean(groups[name]) for name in sorted(groups)}
