"""M-RIA against a plain loop, and where it must equal RIA."""

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from mwanda.criteria.mria import MRIA
from mwanda.criteria.mwanda import MWanda
from mwanda.criteria.ria import RIA
from mwanda.statistics import LanguageStatistics, SequenceSums


PROPERTY = settings(deadline=None, derandomize=True, max_examples=40)
ROWS, FEATURES = 5, 8
FLOATS = st.floats(-100, 100, width=32)
WEIGHTS = arrays(np.float32, (3, FEATURES), elements=FLOATS)

Array = NDArray[Any]


def statistics_of(*languages: Array) -> LanguageStatistics:
    """Return the statistics of inputs (token × in) of each language, some of which may have none."""
    statistics = LanguageStatistics.zeros(len(languages), FEATURES)
    for language, inputs in enumerate(languages):
        if len(inputs):
            statistics.add(SequenceSums.of(torch.from_numpy(inputs)[None]), torch.tensor([language]))
    return statistics


def uneven_languages(*tokens: int) -> list[Array]:
    """Return inputs of languages that differ in their number of tokens and in their loudness."""
    generator = np.random.default_rng(0)
    return [
        (generator.normal(0.2, 1, (count, FEATURES)) * generator.uniform(0.1, 3, FEATURES)).astype(np.float32)
        for count in tokens
    ]


def score_by_formula(
    weight: list[list[float]], languages: list[Array], variance_weight: float, beta: float, alpha: float
) -> list[list[float]]:
    """Return M-RIA's scores in plain Python, with the pooled shared part and the variance."""
    tokens = sum(len(inputs) for inputs in languages)
    scores = [[0.0] * FEATURES for _ in weight]
    for j in range(FEATURES):
        columns = [[float(value) for value in inputs[:, j]] for inputs in languages]
        loud = [math.sqrt(sum(value**2 for value in column) / len(column)) for column in columns]
        mean = sum(loud) / len(loud)
        variance = sum((value - mean) ** 2 for value in loud) / len(loud)
        pooled = math.sqrt(sum(value**2 for column in columns for value in column) / tokens)
        probability = sum(sum(value > 0 for value in column) / len(column) for column in columns) / len(columns)
        importance = math.sqrt(tokens) * (pooled + variance_weight * variance) * probability**beta
        for i, row in enumerate(weight):
            in_column = sum(abs(other[j]) for other in weight)
            in_row = sum(abs(value) for value in row)
            scores[i][j] = (abs(row[j]) / in_column + abs(row[j]) / in_row) * importance**alpha
    return scores


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.3])
@pytest.mark.parametrize("beta", [0.0, 0.7])
@pytest.mark.parametrize("variance_weight", [0.0, 0.5, 3.0])
def test_scores_equal_a_plain_loop(variance_weight: float, beta: float, alpha: float) -> None:
    languages = uneven_languages(5, 12, 7)
    weight = np.random.default_rng(1).normal(size=(ROWS, FEATURES)).astype(np.float32)
    criterion = MRIA(variance_weight, probability_exponent=beta, exponent=alpha)
    found = criterion.score(torch.from_numpy(weight), statistics_of(*languages))
    expected = score_by_formula(weight.tolist(), languages, variance_weight, beta, alpha)
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-5)


@PROPERTY
@given(weight=WEIGHTS, inputs=arrays(np.float32, (3, 4, FEATURES), elements=FLOATS), normalised=st.booleans())
def test_without_variance_scores_equal_those_of_ria_bit_for_bit(weight: Array, inputs: Array, normalised: bool) -> None:
    statistics, matrix = statistics_of(*inputs), torch.from_numpy(weight)
    found = MRIA(variance_weight=0.0, normalised=normalised).score(matrix, statistics)
    assert torch.equal(found, RIA().score(matrix, statistics))


@PROPERTY
@given(
    weight=WEIGHTS,
    inputs=arrays(np.float32, st.tuples(st.integers(1, 6), st.just(FEATURES)), elements=FLOATS),
    criterion=st.builds(
        MRIA,
        variance_weight=st.sampled_from([0.0, 0.5, 100.0]),
        shared=st.sampled_from(["pooled", "mean"]),
        disagreement=st.sampled_from(["variance", "standard_deviation"]),
        normalised=st.booleans(),
        exponent=st.sampled_from([0.5, 1.0, 2.0]),
    ),
)
def test_with_one_language_scores_equal_those_of_ria_bit_for_bit(weight: Array, inputs: Array, criterion: MRIA) -> None:
    statistics, matrix = statistics_of(inputs), torch.from_numpy(weight)
    assert torch.equal(criterion.score(matrix, statistics), RIA(criterion.exponent).score(matrix, statistics))


def test_without_activations_languages_do_not_matter() -> None:
    weight = torch.randn(ROWS, FEATURES, generator=torch.Generator().manual_seed(0))
    first, second = statistics_of(*uneven_languages(4, 4)), statistics_of(*uneven_languages(3, 9, 2))
    assert torch.equal(MRIA(exponent=0.0).score(weight, first), MRIA(exponent=0.0).score(weight, second))


def test_rows_and_columns_of_zeros_score_zero() -> None:
    weight = torch.ones(ROWS, FEATURES)
    weight[1], weight[:, 3] = 0, 0
    scores = MRIA().score(weight, statistics_of(*uneven_languages(4, 4)))
    assert scores[1].tolist() == [0.0] * FEATURES
    assert scores[:, 3].tolist() == [0.0] * ROWS
    assert bool(torch.isfinite(scores).all())


@pytest.mark.parametrize("kind", [MWanda, MRIA])
@pytest.mark.parametrize("exponent", [0.0, 0.5])
@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("disagreement", ["variance", "standard_deviation"])
@pytest.mark.parametrize("shared", ["pooled", "mean"])
def test_a_language_without_tokens_is_as_if_it_were_not_there(
    shared: Literal["pooled", "mean"],
    disagreement: Literal["variance", "standard_deviation"],
    normalised: bool,
    exponent: float,
    kind: type[MWanda],
) -> None:
    """An expert of a mixture need not meet every language; loud inputs, as those of large models are."""
    first, second = (100 * inputs for inputs in uneven_languages(5, 9))
    nobody = np.zeros((0, FEATURES), dtype=np.float32)
    criterion = kind(2.0, shared, disagreement, normalised, exponent)
    weight = torch.randn(ROWS, FEATURES, generator=torch.Generator().manual_seed(0))
    found = criterion.score(weight, statistics_of(nobody, first, nobody, second))
    torch.testing.assert_close(found, criterion.score(weight, statistics_of(first, second)), rtol=1e-5, atol=0)
    assert bool((found > 0).all())


@pytest.mark.parametrize("kind", [MWanda, MRIA])
@pytest.mark.parametrize("shared", ["pooled", "mean"])
@pytest.mark.parametrize("loudness", [0.0, 1e-38, 1e-20, 1e-3, 1e3, 1e15])
def test_a_language_that_is_silent_beside_a_loud_one_gives_finite_scores(
    loudness: float, shared: Literal["pooled", "mean"], kind: type[MWanda]
) -> None:
    first, second = uneven_languages(5, 9)
    criterion = kind(2.0, shared, normalised=True)
    quiet = (np.float32(loudness) * second).astype(np.float32)
    scores = criterion.score(torch.ones(ROWS, FEATURES), statistics_of(100 * first, quiet))
    assert bool(torch.isfinite(scores).all())
    assert bool((scores > 0).all())


@pytest.mark.parametrize("kind", [MWanda, MRIA])
def test_no_language_with_a_token_gives_zeros(kind: type[MWanda]) -> None:
    nobody = np.zeros((0, FEATURES), dtype=np.float32)
    for normalised in (False, True):
        for shared in ("pooled", "mean"):
            criterion = kind(2.0, shared, normalised=normalised, probability_exponent=0.5)
            scores = criterion.score(torch.ones(ROWS, FEATURES), statistics_of(nobody, nobody))
            assert scores.tolist() == [[0.0] * FEATURES] * ROWS
