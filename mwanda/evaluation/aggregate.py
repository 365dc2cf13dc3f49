"""What perplexities per language come to over all languages."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mwanda.evaluation.perplexity import LanguagePerplexity
from mwanda.languages import Language


def aggregate(measured: Mapping[str, LanguagePerplexity], languages: Sequence[Language]) -> dict[str, Any]:
    """Return geometric mean, mean and worst perplexity, and geometric means by family and script.

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
        "by_family": _by(languages, values, lambda language: language.family),
        "by_script": _by(languages, values, lambda language: language.script),
    }


def geometric_mean(values: Iterable[float]) -> float:
    """Return `exp` of the mean logarithm."""
    logarithms = [math.log(value) for value in values]
    return math.exp(math.fsum(logarithms) / len(logarithms))


def _by(languages: Sequence[Language], values: Mapping[str, float], key: Callable[[Language], str]) -> dict[str, float]:
    groups: dict[str, list[float]] = {}
    for language in languages:
        if language.code in values:
            groups.setdefault(key(language), []).append(values[language.code])
    return {name: geometric_mean(groups[name]) for name in sorted(groups)}
