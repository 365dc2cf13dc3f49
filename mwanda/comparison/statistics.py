"""What the perplexities of one run come to."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mwanda.languages.ratios import exponential, ratio


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


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value
