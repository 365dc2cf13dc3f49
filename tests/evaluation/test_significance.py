"""Intervals, tests and aggregates against cases worked by hand and against SciPy's own bootstrap."""

import itertools
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap

from mwanda.errors import ComparisonError
from mwanda.evaluation.sentence_losses import SentenceLosses
from mwanda.evaluation.significance import (
    aggregate_pairs,
    compare,
    ends,
    holm,
    intervals,
    paired_test,
)


def units(nats: list[float], tokens: list[int] | None = None) -> SentenceLosses:
    """Return units with two bytes and one character for each token."""
    count = tuple(tokens or [10] * len(nats))
    return SentenceLosses(count, tuple(2 * each for each in count), count, tuple(nats))


def drawn(seed: int, count: int = 40, worse: float = 0.0) -> SentenceLosses:
    """Return units with losses of three nats a token or so, shifted by `worse` nats a token."""
    random = np.random.default_rng(seed)
    tokens = random.integers(5, 30, count)
    nats = tokens * (3 + worse + random.normal(0, 0.3, count))
    return units(nats.tolist(), tokens.tolist())


def worse(one: SentenceLosses, change: float, noise: float = 0.05, seed: int = 9) -> SentenceLosses:
    """Return what another model did with the same units."""
    random = np.random.default_rng(seed)
    tokens = np.array(one.tokens)
    changed = np.array(one.nats) + tokens * (change + random.normal(0, noise, len(tokens)))
    return replace(one, nats=tuple(changed.tolist()))


# ---- Holm


def test_holm_worked_by_hand() -> None:
    """0.005 × 4, 0.01 × 3, 0.03 × 2, and 0.04 × 1 = 0.04, which may not be below the one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert holm([0.2]).tolist() == [0.2]
    assert holm([]).tolist() == []


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_holm_lies_between_no_correction_and_bonferroni_and_keeps_the_order(values: list[float]) -> None:
    found = holm(values)
    assert (found >= np.array(values)).all()
    assert (found <= np.minimum(1, np.array(values) * len(values)) + 1e-12).all()
    assert (np.diff(found[np.argsort(values, kind="stable")]) >= 0).all()


# ---- the paired test


def test_the_paired_test_worked_by_hand() -> None:
    """Ranks 1 to 6 are all positive: 2 of the 64 ways to give signs are as extreme. With one negative of rank 1: 4."""
    before = np.zeros(6)
    assert paired_test(before, np.array([1.0, 2, 3, 4, 5, 6])) == 2 / 64
    assert paired_test(before, np.array([-1.0, 2, 3, 4, 5, 6])) == 4 / 64
    assert paired_test(before, before) == 1.0
    assert paired_test(np.zeros(1), np.ones(1)) == 1.0
    assert paired_test(np.zeros(0), np.zeros(0)) == 1.0


def test_infinite_losses_are_worse_than_any_other() -> None:
    before = np.ones(6)
    assert paired_test(before, np.array([2.0, 3, 4, 5, 6, math.inf])) == 2 / 64
    assert paired_test(np.full(6, math.inf), np.full(6, math.inf)) == 1.0
    assert paired_test(before, np.full(6, math.inf)) < 0.05


@pytest.mark.parametrize("seed", range(3))
def test_the_paired_test_is_exact_for_few_units(seed: int) -> None:
    """Every way to give signs to the ranks of nine differences, by force."""
    difference = np.random.default_rng(seed).normal(0.4, 1, 9)
    ranks = np.argsort(np.argsort(np.abs(difference))) + 1
    observed = abs((ranks * np.sign(difference)).sum())
    sums = [abs(float(np.dot(ranks, signs))) for signs in itertools.product((-1, 1), repeat=9)]
    expected = sum(each >= observed for each in sums) / len(sums)
    assert paired_test(np.zeros(9), difference) == pytest.approx(expected)


def test_a_change_is_significant_only_where_test_and_interval_agree() -> None:
    """Nineteen sentences get a little worse and a long one much better: the ranks and the sum contradict each other."""
    one = units([30.0] * 20, [10] * 19 + [40])
    other = replace(one, nats=(*(30.5 + place / 100 for place in range(19)), 5.0))
    pair = compare({"a": one}, {"a": other}, 500).pairs["a"]
    assert pair.p < 0.05
    assert pair.log_ratio < 0
    assert not pair.significant


def test_without_a_difference_a_twentieth_of_the_languages_seems_to_differ_and_hardly_any_after_holm() -> None:
    before = {f"l{place}": drawn(place) for place in range(200)}
    after = {code: worse(one, 0.0, seed=100 + place) for place, (code, one) in enumerate(before.items())}
    pairs = compare(before, after, resamples=100).pairs.values()
    assert 2 <= sum(pair.p < 0.05 for pair in pairs) <= 20
    assert sum(pair.significant for pair in pairs) <= 1


# ---- intervals


def test_intervals_are_those_of_scipy() -> None:
    one, resamples = drawn(1), 4000
    found = intervals({"eng_Latn": one}, resamples, seed=3)["eng_Latn"]
    parts = {"perplexity": one.tokens, "bits_per_byte": one.bytes, "bits_per_character": one.characters}
    for name, sizes in parts.items():

        def measure(nats: Any, size: Any, name: str = name) -> float:
            mean = float(nats.sum() / size.sum())
            return math.exp(mean) if name == "perplexity" else mean / math.log(2)

        expected = bootstrap(
            (np.array(one.nats), np.array(sizes)),
            measure,
            paired=True,
            vectorized=False,
            method="percentile",
            n_resamples=resamples,
            rng=8,
        ).confidence_interval
        width = expected.high - expected.low
        assert found[name] == pytest.approx((expected.low, expected.high), abs=width / 15)


def test_the_resamples_of_two_units_are_worked_by_hand() -> None:
    """Sentences of 1 and 3 nats a token: resamples are 1, 2 and 3 nats, in a quarter, half and quarter of the draws."""
    found = intervals({"eng_Latn": units([10.0, 30.0])}, 2000, seed=0)["eng_Latn"]
    assert found["perplexity"] == pytest.approx((math.exp(1), math.exp(3)))
    assert found["bits_per_byte"] == pytest.approx((0.5 / math.log(2), 1.5 / math.log(2)))
    assert found["bits_per_character"] == pytest.approx((1 / math.log(2), 3 / math.log(2)))


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_units_have_no_interval(count: int) -> None:
    measured = {"eng_Latn": drawn(1, count), "deu_Latn": drawn(2)}
    found = intervals(measured, 100, 0)
    assert all(math.isnan(end) for pair in found["eng_Latn"].values() for end in pair)
    assert found["deu_Latn"] == intervals({"deu_Latn": measured["deu_Latn"]}, 100, 0)["deu_Latn"]


def test_units_without_a_scored_token_change_nothing() -> None:
    one = drawn(1)
    padded = SentenceLosses((0, *one.tokens), (0, *one.bytes), (0, *one.characters), (0.0, *one.nats))
    assert intervals({"a": padded}, 200, 0) == intervals({"a": one}, 200, 0)
    pair = compare({"a": padded}, {"a": padded}, 200).pairs["a"]
    assert pair == compare({"a": one}, {"a": one}, 200).pairs["a"]


def test_infinite_losses_give_infinite_ends_and_no_warning() -> None:
    nats = [10.0 + place for place in range(10)]
    found = intervals({"a": units([*nats, math.inf])}, 200, 0)["a"]["perplexity"]
    assert found[0] < found[1] == math.inf
    lost = compare({"a": units(nats)}, {"a": units([math.inf] * 10)}, 200)
    assert (lost.pairs["a"].log_ratio, lost.pairs["a"].low, lost.pairs["a"].hurt) == (math.inf, math.inf, True)
    assert aggregate_pairs(lost, {})["ratio"] == math.inf
    gone = compare({"a": units([math.inf] * 10)}, {"a": units([math.inf] * 10)}, 200)
    assert math.isnan(gone.pairs["a"].log_ratio)
    assert (gone.pairs["a"].p, aggregate_pairs(gone, {})["share_hurt"]) == (1.0, 0.0)


# ---- pairs


def test_a_log_ratio_is_the_difference_of_mean_losses() -> None:
    before, after = units([10.0, 40.0], [10, 30]), units([20.0, 50.0], [10, 30])
    pair = compare({"a": before}, {"a": after}, 500).pairs["a"]
    assert pair.log_ratio == pytest.approx(20 / 40)
    assert (pair.low, pair.high) == pytest.approx((10 / 30, 1.0))
    assert (pair.p, pair.p_holm, pair.significant, pair.units) == (0.5, 0.5, False, 2)


def test_a_constant_change_has_an_interval_without_width() -> None:
    one = drawn(1)
    pair = compare({"a": one}, {"a": worse(one, 0.25, noise=0)}, 500).pairs["a"]
    assert (pair.log_ratio, pair.low, pair.high) == pytest.approx((0.25, 0.25, 0.25))
    assert pair.hurt
    assert not pair.helped


def test_pairing_narrows_the_interval() -> None:
    one = drawn(1)
    pair = compare({"a": one}, {"a": worse(one, 0.1)}, 500).pairs["a"]
    low, high = intervals({"a": one}, 500, 0)["a"]["perplexity"]
    assert pair.high - pair.low < math.log(high / low) / 2


def test_a_language_does_not_depend_on_the_others_but_for_holm() -> None:
    before = {code: drawn(seed, 10 + 10 * (seed % 2)) for seed, code in enumerate("abcd")}
    after = {code: worse(one, 0.1) for code, one in before.items()}
    together = compare(before, after, 300, seed=5).pairs
    for code in before:
        alone = compare({code: before[code]}, {code: after[code]}, 300, seed=5).pairs[code]
        corrected = replace(together[code], p_holm=alone.p_holm, significant=alone.significant)
        assert vars(corrected) == pytest.approx(vars(alone))
        assert alone.p == alone.p_holm


def test_the_seed_decides_what_is_drawn() -> None:
    one = drawn(1)
    first, again, other = (compare({"a": one}, {"a": worse(one, 0.1)}, 300, seed).draws["a"] for seed in (1, 1, -2))
    assert first.tolist() == again.tolist() != other.tolist()


def test_sentences_of_a_parallel_corpus_are_drawn_together() -> None:
    """What pruning does to a sentence of one language it does here to its translation too: nothing averages out."""
    before = {code: drawn(1) for code in "abcdefgh"}
    same = {code: worse(one, 0.1) for code, one in before.items()}
    whole = aggregate_pairs(compare(before, same, 500), {})
    single = compare({"a": before["a"]}, {"a": same["a"]}, 500).pairs["a"]
    assert (math.log(whole["low"]), math.log(whole["high"])) == pytest.approx((single.low, single.high))
    apart = {code: worse(one, 0.1, seed=place) for place, (code, one) in enumerate(before.items())}
    independent = aggregate_pairs(compare(before, apart, 500), {})
    assert independent["high"] - independent["low"] < (whole["high"] - whole["low"]) / 2


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ({"a": drawn(1), "b": drawn(2)}, "b: measured of one model only"),
        ({"a": drawn(1, 39)}, "a: measured on different text or tokens"),
        ({"a": replace(drawn(1), tokens=drawn(2).tokens)}, "a: measured on different text or tokens"),
    ],
)
def test_what_was_measured_on_other_text_is_refused(after: dict[str, SentenceLosses], message: str) -> None:
    with pytest.raises(ComparisonError, match=message):
        compare({"a": drawn(1)}, after)


# ---- aggregates


def hand_comparison() -> Any:
    """Return four languages whose log-ratios are 0.1, 0.2, 0.6 and −0.3, without any doubt."""
    changes = {"a": 0.1, "b": 0.2, "c": 0.6, "d": -0.3}
    before = {code: drawn(place) for place, code in enumerate(changes)}
    return compare(before, {code: worse(before[code], change, noise=0) for code, change in changes.items()}, 200)


def test_aggregates_worked_by_hand() -> None:
    found = aggregate_pairs(hand_comparison(), {"by_family": {"a": "X", "b": "X", "c": "Y"}})
    ratio = math.exp(0.15)
    assert (found["languages"], found["share_hurt"], found["share_helped"]) == (4, 0.75, 0.25)
    assert (found["ratio"], found["low"], found["high"]) == pytest.approx((ratio, ratio, ratio))
    assert (found["worst_language"], found["best_language"]) == ("c", "d")
    assert (found["worst_ratio"], found["best_ratio"]) == pytest.approx((math.exp(0.6), math.exp(-0.3)))
    assert found["spread"] == pytest.approx({"log_ratio": 0.9, "low": 0.9, "high": 0.9})
    assert list(found["by_family"]) == ["X", "Y"]
    assert found["by_family"]["X"]["languages"] == 2
    assert found["by_family"]["X"]["ratio"] == pytest.approx(ratio)
    assert found["by_family"]["Y"]["ratio"] == pytest.approx(math.exp(0.6))
    assert json.loads(json.dumps(found)) == found


def test_the_interval_of_the_geometric_mean_holds_the_truth_about_as_often_as_it_says() -> None:
    """Of 60 experiments, each with three languages whose true log-ratio is 0.1, 95 % is 57."""
    held = 0
    for experiment in range(60):
        before = {code: drawn(experiment * 10 + place, 30) for place, code in enumerate("abc")}
        after = {
            code: worse(one, 0.1, seed=1000 + experiment * 10 + place)
            for place, (code, one) in enumerate(before.items())
        }
        found = aggregate_pairs(compare(before, after, 300, seed=experiment), {})
        held += found["low"] <= math.exp(0.1) <= found["high"]
    assert 50 <= held <= 60


def test_one_unit_leaves_the_aggregate_without_an_interval() -> None:
    before = {"a": drawn(1), "b": drawn(2, 1)}
    found = aggregate_pairs(compare(before, {code: worse(one, 0.1) for code, one in before.items()}, 200), {})
    assert math.isfinite(found["ratio"])
    assert math.isnan(found["low"])


def test_ends_are_percentiles() -> None:
    assert ends(np.arange(1001.0)) == pytest.approx((25.0, 975.0))
