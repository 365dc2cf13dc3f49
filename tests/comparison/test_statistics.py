"""What perplexities of a run and of several seeds come to, by hand."""

import math

import pytest
from synthetic_results import results

from mwanda.comparison.statistics import changes


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
