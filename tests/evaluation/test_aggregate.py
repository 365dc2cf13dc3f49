"""Aggregates against a case worked by hand."""

import json
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mwanda.evaluation.aggregate import aggregate, geometric_mean
from mwanda.evaluation.perplexity import LanguagePerplexity
from mwanda.languages import find


def measured(values: Mapping[str, float]) -> dict[str, LanguagePerplexity]:
    """Return perplexities with a bit a byte for each doubling."""
    return {code: LanguagePerplexity(value, value / 4, 10, 20, value - 1, value + 1) for code, value in values.items()}


def test_a_case_worked_by_hand() -> None:
    values = {"deu_Latn": 2.0, "rus_Cyrl": 8.0, "fin_Latn": 32.0}
    found = aggregate(measured(values), find(list(values)))
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


@settings(deadline=None)
@given(st.lists(st.floats(1, 1e30), min_size=1, max_size=200), st.floats(0.1, 10))
def test_the_geometric_mean_scales_with_its_values(values: list[float], factor: float) -> None:
    """So that the ratio to the dense model is the same whether taken before or after."""
    scaled = geometric_mean([factor * value for value in values])
    assert scaled == pytest.approx(factor * geometric_mean(values), rel=1e-9)
    assert min(values) * (1 - 1e-9) <= geometric_mean(values) <= max(values) * (1 + 1e-9)
