"""Bootstrap intervals, paired tests and their aggregates over languages; functions of arrays and plain values.

A sentence is a line of the evaluation text. Bootstraps resample sentences within each language, percentile method,
95 %. Languages with the same number of sentences are resampled alike, one by one: those of a parallel corpus say the
same in every language, so that what one of them does to several languages stays together. An interval covers which
sentences were drawn; neither which languages were chosen nor which text calibrated the pruning (other seeds tell that).

Legend: S series, K statistics, L languages, U sentences, R resamples.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mwanda.errors import ComparisonError
from mwanda.evaluation.finite import overflows
from mwanda.evaluation.sentence_losses import SentenceLosses
from mwanda.languages.groups import members
from mwanda.languages.ratios import exponential


LEVEL = 0.05
"""Of the intervals and of the tests."""

RESAMPLED_AT_ONCE = 1 << 22
"""Numbers that a bootstrap holds of each series, which bounds its memory for hundreds of languages."""

Statistic = Callable[..., np.ndarray]


@dataclass(frozen=True)
class Pair:
    """One language before and after.

    Args:
        log_ratio: logarithm of the perplexity after over that before: positive is worse.
        low: lower end of its interval.
        high: upper end.
        p: of the two-sided Wilcoxon signed-rank test on the differences of the sentences' losses.
        p_holm: the same, corrected over the languages by Holm.
        significant: whether `p_holm` is below 5 % and the interval leaves out zero.
        units: that were compared.
        lost: whether the perplexity after is infinite, and that before is not.
    """

    log_ratio: float
    low: float
    high: float
    p: float
    p_holm: float
    significant: bool
    units: int
    lost: bool = False

    @property
    def hurt(self) -> bool:
        """Whether the language is significantly worse, or lost, which takes no test."""
        return self.lost or (self.significant and self.log_ratio > 0)

    @property
    def helped(self) -> bool:
        """Whether the language is significantly better."""
        return self.significant and self.log_ratio < 0


@dataclass(frozen=True)
class Comparison:
    """Two measurements of the same sentences.

    Args:
        pairs: by language.
        draws: the resampled log-ratios of each language, `R` each; not a number where one unit allows none.
    """

    pairs: dict[str, Pair]
    draws: dict[str, Float[ndarray, " R"]] = field(repr=False)

    def as_record(self) -> dict[str, dict[str, Any]]:
        """Return what results.json holds."""
        return {code: asdict(pair) | {"hurt": pair.hurt} for code, pair in self.pairs.items()}


def intervals(
    measured: Mapping[str, SentenceLosses], resamples: int, seed: int
) -> dict[str, dict[str, tuple[float, float]]]:
    """Return, for each language, intervals of `perplexity`, `bits_per_byte` and `bits_per_character`."""

    def statistic(nats: ndarray, tokens: ndarray, size: ndarray, characters: ndarray, axis: int = -1) -> ndarray:
        total = nats.sum(axis=axis)
        return np.stack([total / part.sum(axis=axis) for part in (tokens, size, characters)])

    series = {
        code: _scored(losses, losses.nats, losses.tokens, losses.bytes, losses.characters)
        for code, losses in measured.items()
    }
    found = {}
    for code, draws in _resampled(series, statistic, resamples, seed).items():
        loss, per_byte, per_character = (ends(each) for each in draws)
        found[code] = {
            "perplexity": (exponential(loss[0]), exponential(loss[1])),
            "bits_per_byte": (per_byte[0] / math.log(2), per_byte[1] / math.log(2)),
            "bits_per_character": (per_character[0] / math.log(2), per_character[1] / math.log(2)),
        }
    return found


def compare(
    before: Mapping[str, SentenceLosses], after: Mapping[str, SentenceLosses], resamples: int = 1000, seed: int = 0
) -> Comparison:
    """Compare two models on the same sentences of the same languages, by paired bootstrap and paired test.

    The test is Wilcoxon's signed-rank test on the differences of the sentences' losses. No single sentence can decide
    it; its p-values are exact for few sentences, and have no floor, as those of a permutation test with `n` draws have
    one at `1 / (n + 1)`, which times hundreds of languages could never be significant. It weighs ranks, and the
    log-ratio tokens: a change counts as significant only where the interval of the log-ratio agrees.

    Raises:
        ComparisonError: the two were measured on different languages, text or tokens.
    """
    if before.keys() != after.keys():
        only = sorted(before.keys() ^ after.keys())
        raise ComparisonError(f"{', '.join(only)}: measured of one model only; compare what both have")
    for code, losses in before.items():
        if (losses.tokens, losses.bytes) != (after[code].tokens, after[code].bytes):
            raise ComparisonError(f"{code}: measured on different text or tokens; measure one of the two again")

    def statistic(first: ndarray, second: ndarray, tokens: ndarray, axis: int = -1) -> ndarray:
        return log_ratio(first.sum(axis=axis), second.sum(axis=axis), tokens.sum(axis=axis))[None]

    series = {code: _scored(losses, losses.nats, after[code].nats, losses.tokens) for code, losses in before.items()}
    draws = {code: found[0] for code, found in _resampled(series, statistic, resamples, seed).items()}
    p_values = [paired_test(*values[:2]) for values in series.values()]
    pairs = {}
    for (code, values), p, corrected in zip(series.items(), p_values, holm(p_values), strict=True):
        low, high = ends(draws[code])
        pairs[code] = Pair(
            log_ratio=float(log_ratio(*values.sum(axis=1))),
            low=low,
            high=high,
            p=p,
            p_holm=float(corrected),
            significant=bool(corrected < LEVEL and (low > 0 or high < 0)),
            units=values.shape[1],
            lost=overflows(after[code]) and not overflows(before[code]),
        )
    return Comparison(pairs, draws)


def aggregate_pairs(comparison: Comparison, groups: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Return what a comparison comes to over all languages and over each group of them.

    `ratio` is the geometric mean of the languages' ratios. `spread` is the log-ratio of the worst-hit language minus
    that of the best-hit one, its interval that of these two languages; as the extremes of noisy values, both are
    further apart than the truth is. Shares count the languages whose test stays significant after Holm over all, and
    among those that are hurt the ones whose perplexity is infinite.

    Args:
        comparison: of all languages.
        groups: by the name of a grouping (`by_family`), the group of each language; languages it lacks are left out.
    """
    pairs = comparison.pairs
    ranked = sorted(pairs, key=lambda code: _or(pairs[code].log_ratio, -math.inf))
    best, worst = ranked[0], ranked[-1]
    low, high = ends(_minus(comparison.draws[worst], comparison.draws[best]))
    return {
        **_group(comparison, list(pairs)),
        "worst_language": worst,
        "worst_ratio": exponential(pairs[worst].log_ratio),
        "best_language": best,
        "best_ratio": exponential(pairs[best].log_ratio),
        "spread": {
            "log_ratio": float(_minus(pairs[worst].log_ratio, pairs[best].log_ratio)),
            "low": low,
            "high": high,
        },
        **{
            name: {group: _group(comparison, codes) for group, codes in sorted(members(labels, pairs).items())}
            for name, labels in groups.items()
        },
    }


def paired_test(before: Float[ndarray, " U"], after: Float[ndarray, " U"]) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test; 1 where nothing differs.

    An infinite loss is worse than any other, and two of them do not differ.
    """
    from scipy.stats import wilcoxon  # takes half a second, which those who only look do not wait for

    largest = np.finfo(float).max
    difference = np.nan_to_num(_minus(after, before), nan=0.0, posinf=largest, neginf=-largest)
    return float(wilcoxon(difference).pvalue) if difference.any() else 1.0


def holm(p_values: Sequence[float]) -> Float[ndarray, " L"]:
    """Return p-values corrected for their number (Holm 1979): the k-th smallest of n times n − k + 1, never falling."""
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values, kind="stable")
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    return corrected


def log_ratio(
    before: Float[ndarray, "*shape"], after: Float[ndarray, "*shape"], tokens: Float[ndarray, "*shape"]
) -> Float[ndarray, "*shape"]:
    """Return the logarithm of a ratio of perplexities: the difference of the mean losses in nats."""
    return np.asarray(_minus(after, before) / tokens)


def ends(draws: Float[ndarray, " R"]) -> tuple[float, float]:
    """Return the ends of the 95 % percentile interval of resampled values, which are values themselves."""
    low = np.quantile(draws, LEVEL / 2, method="lower")  # between two infinite values lies no number
    high = np.quantile(draws, 1 - LEVEL / 2, method="higher")
    return float(low), float(high)


def _scored(losses: SentenceLosses, *series: Sequence[float]) -> Float[ndarray, "S U"]:
    """Return series without the sentences of which no token was scored."""
    values = np.array(series, dtype=float).reshape(len(series), len(losses))
    kept: ndarray = values[:, np.array(losses.tokens) > 0]
    return kept


def _resampled(
    series: Mapping[str, Float[ndarray, "S U"]], statistic: Statistic, resamples: int, seed: int
) -> dict[str, Float[ndarray, "K R"]]:
    """Return resampled statistics of each language; those with equally many sentences share those that are drawn."""
    from scipy.stats import DegenerateDataWarning, bootstrap

    sizes: dict[int, list[str]] = {}
    for code, values in series.items():
        sizes.setdefault(values.shape[1], []).append(code)
    found: dict[str, ndarray] = {}
    for size, codes in sizes.items():
        if size < 2:
            count = len(statistic(*np.ones((len(series[codes[0]]), 1))))
            found |= {code: np.full((count, resamples), math.nan) for code in codes}
            continue
        with np.errstate(invalid="ignore", over="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", DegenerateDataWarning)  # infinite losses
            draws = bootstrap(
                tuple(np.stack([series[code] for code in codes], axis=1)),
                statistic,
                paired=True,
                vectorized=True,
                axis=-1,
                method="percentile",
                n_resamples=resamples,
                batch=max(1, RESAMPLED_AT_ONCE // (len(codes) * size)),
                rng=np.random.default_rng([seed % 2**32, size]),
            ).bootstrap_distribution
        found |= {code: draws[:, place] for place, code in enumerate(codes)}
    return found


def _group(comparison: Comparison, codes: Sequence[str]) -> dict[str, Any]:
    """Return the geometric-mean ratio of some languages, its interval, and the shares that are hurt or helped."""
    pairs = [comparison.pairs[code] for code in codes]
    # Of ratios that are logarithms the geometric mean is the plain one, here as of each resample.
    with np.errstate(invalid="ignore"):  # one language is lost and another found: their mean is no number
        low, high = ends(np.mean([comparison.draws[code] for code in codes], axis=0))
        ratio = float(np.mean([pair.log_ratio for pair in pairs]))
    return {
        "languages": len(codes),
        "ratio": exponential(ratio),
        "low": exponential(low),
        "high": exponential(high),
        "share_hurt": sum(pair.hurt for pair in pairs) / len(pairs),
        "share_helped": sum(pair.helped for pair in pairs) / len(pairs),
    }


def _minus(after: Any, before: Any) -> Any:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.subtract(after, before)


def _or(value: float, otherwise: float) -> float:
    return otherwise if math.isnan(value) else value
