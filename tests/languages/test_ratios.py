"""Ratios and geometric means, at the edges of what numbers can hold."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mwanda.languages.ratios import exponential, geometric_mean, ratio


def test_a_ratio_is_pruned_over_dense_and_unknown_where_the_record_has_null() -> None:
    assert ratio(8.0, 12.0) == 1.5
    assert ratio(8.0, math.inf) == math.inf
    assert ratio(None, 12.0) is ratio(8.0, None) is None


def test_exponentials_beyond_numbers_are_infinite() -> None:
    assert exponential(1e4) == exponential(math.inf) == math.inf
    assert exponential(0.0) == 1.0
    assert exponential(None) is None


def test_geometric_means_by_hand() -> None:
    assert geometric_mean([2.0, 8.0, 32.0]) == pytest.approx(8.0)
    assert geometric_mean([1.0, math.inf]) == math.inf
    assert geometric_mean([1e308, 1e308]) == pytest.approx(1e308)
    assert math.isnan(geometric_mean([]))


@settings(deadline=None)
@given(st.lists(st.floats(1, 1e30), min_size=1, max_size=200), st.floats(0.1, 10))
def test_the_geometric_mean_scales_with_its_values(values: list[float], factor: float) -> None:
    """So that the ratio to the dense model is the same whether taken before or after."""
    scaled = geometric_mean([factor * value for value in values])
    assert scaled == pytest.approx(factor * geometric_mean(values), rel=1e-9)
    assert min(values) * (1 - 1e-9) <= geometric_mean(values) <= max(values) * (1 + 1e-9)
