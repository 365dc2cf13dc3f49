"""What perplexities of one run, and of runs that differ in the seed, come to: functions of plain records."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mwanda.languages.ratios import exponential, ratio


@dataclass(frozen=True)
class Estimate:
    """Mean over seeds, sample standard deviation (None of one seed), and the number of seeds."""

    mean: float
    deviation: float | None
    n: int


@dataclass(frozen=True)
class Change:
    """One language, dense and pruned.

    Args:
        dense: perplexity.
        pruned: perplexity; infinite where the record has none.
        low: end of the 95 % interval of the ratio; None where none was measured.
        high: the other end.
        significant: whether the change is significant, corrected over the languages; None where it was not tested.
    """

    dense: float
    pruned: float
    low: float | None = None
    high: float | None = None
    significant: bool | None = None

    @cached_property
    def ratio(self) -> float:
        """Pruned over dense."""
        return ratio(self.dense, self.pruned)

    @cached_property
    def hurt(self) -> bool | None:
        """Whether the language is significantly worse, or has been lost: its perplexity is no number any more."""
        if math.isinf(self.ratio):
            return True
        return None if self.significant is None else self.significant and self.ratio > 1


def changes(perplexity: Mapping[str, Any]) -> dict[str, Change]:
    """Return the change of every language from the section `perplexity` of results.json."""
    paired = perplexity.get("paired") or {}
    found = {}
    for code, dense in perplexity.get("dense", {}).items():
        pruned, pair = perplexity["pruned"].get(code), paired.get(code) or {}
        if pruned is not None and dense["perplexity"] is not None:
            found[code] = Change(
                dense["perplexity"],
                _or_infinite(pruned["perplexity"]),
                exponential(pair.get("low")),
                exponential(pair.get("high")),
                pair.get("significant"),
            )
    return found


def over_seeds(values: Iterable[float | None]) -> Estimate | None:
    """Return the estimate of one value a seed; None where a seed has none."""
    every = list(values)
    numbers = [value for value in every if value is not None and not math.isnan(value)]
    if not every or len(numbers) < len(every):
        return None
    mean = sum(numbers) / len(numbers)
    if len(numbers) == 1 or not math.isfinite(mean):
        return Estimate(mean, None, len(numbers))
    variance = sum((value - mean) ** 2 for value in numbers) / (len(numbers) - 1)
    return Estimate(mean, math.sqrt(variance), len(numbers))


def share_hurt(measured: Sequence[Change]) -> float | None:
    """Return the share of languages that are significantly worse; None where one was not tested."""
    marks = [change.hurt for change in measured]
    return None if not marks or None in marks else sum(map(bool, marks)) / len(marks)


def spread(measured: Sequence[Change]) -> float | None:
    """Return how many times further the worst-hit language got than the best-hit: the ratio of their ratios."""
    ratios = [change.ratio for change in measured]
    if not ratios or not math.isfinite(min(ratios)):
        return None
    return max(ratios) / min(ratios)


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value
