"""What perplexities of a run and of several seeds come to, by hand."""

import math

import pytest
from synthetic_results import results

from mwanda.comparison.statistics import Change, changes, over_seeds, share_hurt, spread


def test_changes_by_hand() -> None:
    content = results(ratios={"eng_Latn": 2.0, "deu_Latn": 0.5, "swh_Latn": None}, significant=["eng_Latn", "deu_Latn"])
    found = changes(content["perplexity"])
    assert found["eng_Latn"].ratio == 2
    assert found["eng_Latn"].low == pytest.approx(2 * math.exp(-0.1))
    assert found["eng_Latn"].hurt is True
    assert found["deu_Latn"].hurt is False  # significantly better
    assert found["swh_Latn"].ratio == math.inf  # the record has no number where it was infinite
    assert found["swh_Latn"].hurt is True


def test_records_without_pairs_say_nothing_of_significance() -> None:
    found = changes(results(paired=False)["perplexity"])
    assert all(change.hurt is None and change.low is None for change in found.values())
    assert share_hurt(list(found.values())) is None


def test_over_seeds_by_hand() -> None:
    found = over_seeds([1.0, 2.0, 6.0])
    assert found is not None
    assert (found.mean, found.n) == (3, 3)
    assert found.deviation == pytest.approx(math.sqrt(7))
    one = over_seeds([5.0])
    assert one is not None
    assert (one.mean, one.deviation, one.n) == (5, None, 1)
    assert over_seeds([1.0, None]) is None  # a seed that has no number must not vanish from a mean
    assert over_seeds([]) is None
    infinite = over_seeds([1.0, math.inf])
    assert infinite is not None
    assert (infinite.mean, infinite.deviation) == (math.inf, None)


def test_aggregates_by_hand() -> None:
    measured = [Change(10, 20, significant=True), Change(10, 40, significant=False), Change(10, 5, significant=True)]
    assert spread(measured) == 8
    assert share_hurt(measured) == pytest.approx(1 / 3)
    assert spread([]) is None
