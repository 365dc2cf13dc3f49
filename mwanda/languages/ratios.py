"""Perplexity ratios of single languages, and their geometric mean over several.

Perplexities are compared by their ratio, pruned over dense: 1 where nothing was lost. Over languages the geometric mean
is given, which is the same whether it is taken of ratios, or of perplexities before they are divided.
"""

import math
import sys
from collections.abc import Iterable
from typing import overload

import numpy as np


LARGEST = math.log(sys.float_info.max)
"""Logarithm above which there is no number of 64 bits."""


@overload
def ratio(dense: float, pruned: float) -> float: ...
@overload
def ratio(dense: float | None, pruned: float | None) -> float | None: ...
def ratio(dense: float | None, pruned: float | None) -> float | None:
    """Return the pruned model's perplexity over the dense one's; None where one of them is not known.

    results.json holds null in the place of an infinite perplexity.
    """
    return None if dense is None or pruned is None else pruned / dense


@overload
def exponential(logarithm: float) -> float: ...
@overload
def exponential(logarithm: float | None) -> float | None: ...
def exponential(logarithm: float | None) -> float | None:
    """Return the ratio that a logarithm stands for: infinite where it is too large for a number, None of None."""
    if logarithm is None or logarithm > LARGEST:
        return None if logarithm is None else math.inf
    return float(np.exp(logarithm))


def geometric_mean(values: Iterable[float]) -> float:
    """Return `exp` of the mean logarithm; not a number where there is no value."""
    logarithms = [math.log(value) for value in values]
    return exponential(math.fsum(logarithms) / len(logarithms)) if logarithms else math.nan
