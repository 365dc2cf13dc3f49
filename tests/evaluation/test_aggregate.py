"""Aggregates against a case worked by hand."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from mwanda.evaluation.aggregate import aggregate, aggregate_change
from mwanda.evaluation.perplexity import LanguagePerplexity
from mwanda.evaluation.sentence_losses import SentenceLosses
from mwanda.evaluation.significance import compare
from mwanda.languages import Language, find


def measured(values: Mapping[str, float]) -> dict[str, LanguagePerplexity]:
    """Return perplexities with a bit a byte for each doubling."""
    return {code: LanguagePerplexity(value, value / 4, 10, 20, value - 1, value + 1) for code, value in values.items()}


def languages(codes: Sequence[str]) -> list[Language]:
    """Return languages of which only Finnish has fewer resources, whatever the table says of it."""
    return [replace(each, resource_level="mid" if each.code == "fin_Latn" else "high") for each in find(codes)]


def test_a_case_worked_by_hand() -> None:
    values = {"deu_Latn": 2.0, "rus_Cyrl": 8.0, "fin_Latn": 32.0}
    found = aggregate(measured(values), languages(list(values)))
    assert found == {
        "geometric_mean": pytest.approx(8.0),
        "mean": pytest.approx(14.0),
        "worst": 32.0,
        "worst_language": "fin_Latn",
        "mean_bits_per_byte": pytest.approx(3.5),
        "by_family": {"Indo-European": pytest.approx(4.0), "Uralic": pytest.approx(32.0)},
        "by_script": {"Cyrl": pytest.approx(8.0), "Latn": pytest.approx(8.0)},
        "by_resource_level": {"high": pytest.approx(4.0), "mid": pytest.approx(32.0)},
    }
    assert json.loads(json.dumps(found)) == found


def test_changes_are_grouped_by_what_the_languages_are_and_whether_they_calibrated() -> None:
    codes = ["deu_Latn", "rus_Cyrl", "fin_Latn"]
    before = {code: SentenceLosses((10, 10), (20, 20), (20, 20), (10.0, 20.0)) for code in codes}
    after = {
        code: SentenceLosses((10, 10), (20, 20), (20, 20), (10 + add, 20 + add))
        for code, add in zip(codes, (1, 3, 5), strict=True)
    }
    found = aggregate_change(compare(before, after, 100), languages(codes), seen=["deu_Latn", "fin_Latn", "tam_Taml"])
    ratios = {
        grouping: {group: one["ratio"] for group, one in found[grouping].items()}
        for grouping in ("by_family", "by_script", "by_resource_level", "by_calibration")
    }
    assert ratios == {
        "by_family": {"Indo-European": pytest.approx(math.exp(0.2)), "Uralic": pytest.approx(math.exp(0.5))},
        "by_script": {"Cyrl": pytest.approx(math.exp(0.3)), "Latn": pytest.approx(math.exp(0.3))},
        "by_resource_level": {"high": pytest.approx(math.exp(0.2)), "mid": pytest.approx(math.exp(0.5))},
        "by_calibration": {"seen": pytest.approx(math.exp(0.3)), "unseen": pytest.approx(math.exp(0.3))},
    }
    assert found["by_calibration"]["seen"]["languages"] == 2


def test_a_language_that_was_not_measured_counts_nowhere() -> None:
    found = aggregate(measured({"deu_Latn": 2.0}), find(["deu_Latn", "tam_Taml"]))
    assert found["by_family"] == {"Indo-European": pytest.approx(2.0)}
    assert found["by_script"] == {"Latn": pytest.approx(2.0)}
    assert found["geometric_mean"] == pytest.approx(2.0)


def test_groups_are_named_in_order_whatever_the_order_of_the_languages() -> None:
    values = {"tam_Taml": 2.0, "fin_Latn": 3.0, "deu_Latn": 4.0}
    assert list(aggregate(measured(values), find(list(values)))["by_family"]) == [
        "Dravidian",
        "Indo-European",
        "Uralic",
    ]
