"""Scores equal the formulas of docs/methods.md, and masks equal a plain loop over sorted scores."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jaxtyping import Float
from numpy.typing import NDArray
from selection import chosen
from torch import Tensor

from mwanda.criteria import Criterion
from mwanda.criteria.magnitude import Magnitude
from mwanda.criteria.mria import MRIA
from mwanda.criteria.mwanda import MWanda
from mwanda.criteria.ria import RIA
from mwanda.criteria.wanda import Wanda
from mwanda.patterns import Pattern
from mwanda.patterns.n_of_m import NOfM
from mwanda.patterns.unstructured import Unstructured
from mwanda.statistics import LanguageStatistics, Needs, SequenceSums


PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)
ROWS, FEATURES, LANGUAGES, TOKENS = 6, 16, 4, 4
# Loudness in each language. The pooled norms are 0, 4 and 16, whose square roots are whole numbers too.
LOUDNESS = [(0, 0, 0, 0), (1, 1, 1, 1), (2, 0, 0, 0), (0, 0, 2, 0), (4, 4, 4, 4), (0, 8, 0, 0)]

Array = NDArray[Any]
Cell = tuple[int, int]
Shared = Literal["pooled", "mean"]
Disagreement = Literal["variance", "standard_deviation"]


@dataclass(frozen=True)
class Example:
    """A weight matrix (out × in) and inputs (language × token × in)."""

    weight: Array
    inputs: Array

    @property
    def statistics(self) -> LanguageStatistics:
        """The statistics of the inputs, one sequence a language."""
        return statistics_of(*self.inputs)

    def score(self, criterion: Criterion) -> Float[Tensor, "out in"]:
        """Return the scores that `criterion` gives."""
        return criterion.score(torch.from_numpy(self.weight), self.statistics)


def statistics_of(*languages: Array) -> LanguageStatistics:
    """Return the statistics of inputs (token × in) of each language."""
    statistics = LanguageStatistics.zeros(len(languages), languages[0].shape[1])
    for language, inputs in enumerate(languages):
        statistics.add(SequenceSums.of(torch.from_numpy(inputs)[None]), torch.tensor([language]))
    return statistics


def tied_example(seed: int) -> Example:
    """Return few distinct values, so that scores tie, and norms, means and variances are exact in float32.

    A row and a column of weights are zero, and so are about a fifth of the others.
    """
    generator = np.random.default_rng(seed)
    weight = generator.choice([-2, -1.5, -1, -0.75, 0, 0, 0.5, 1, 1.25, 1.5], (ROWS, FEATURES)).astype(np.float32)
    weight[1], weight[:, 3] = 0, 0
    profiles = generator.choice(LOUDNESS, FEATURES).T
    signs = generator.choice([-1, 1], (LANGUAGES, TOKENS, FEATURES))
    return Example(weight, (profiles[:, None] * signs).astype(np.float32))


def norms(example: Example) -> Array:
    """Return `‖X_j‖₂` by hand."""
    return np.asarray(np.sqrt((example.inputs.astype(np.float64) ** 2).sum(axis=(0, 1))).astype(np.float32))


def loudness(example: Example) -> Array:
    """Return `a_lj` by hand."""
    return np.asarray(np.sqrt((example.inputs.astype(np.float64) ** 2).mean(axis=1)).astype(np.float32))


def magnitude_by_hand(example: Example) -> Array:
    return np.asarray(np.abs(example.weight))


def wanda_by_hand(example: Example) -> Array:
    return np.asarray(np.abs(example.weight) * norms(example))


def mwanda_by_hand(example: Example) -> Array:
    root_tokens = np.float32(math.sqrt(LANGUAGES * TOKENS))
    importance = norms(example) + np.float32(0.5) * root_tokens * loudness(example).var(axis=0)
    return np.asarray(np.abs(example.weight) * importance)


def mwanda_knobs_by_hand(example: Example) -> Array:
    root_tokens = np.float32(math.sqrt(LANGUAGES * TOKENS))
    profiles = loudness(example)
    importance = root_tokens * (profiles.mean(axis=0) + np.float32(2) * profiles.std(axis=0))
    probability = (example.inputs > 0).mean(axis=(0, 1)).astype(np.float32)
    return np.asarray(np.abs(example.weight) * (importance * probability))


def relative_by_hand(example: Example, importance: Array) -> Array:
    magnitude = np.abs(example.weight)
    scores = np.zeros_like(magnitude)
    for i, j in np.argwhere(magnitude > 0):
        relative = magnitude[i, j] / magnitude[:, j].sum() + magnitude[i, j] / magnitude[i].sum()
        scores[i, j] = relative * np.sqrt(importance[j])
    return scores


def ria_by_hand(example: Example) -> Array:
    return relative_by_hand(example, norms(example))


def mria_by_hand(example: Example) -> Array:
    root_tokens = np.float32(math.sqrt(LANGUAGES * TOKENS))
    return relative_by_hand(example, norms(example) + np.float32(16) * root_tokens * loudness(example).var(axis=0))


CRITERIA: dict[str, tuple[Criterion, Callable[[Example], Array]]] = {
    "magnitude of a row": (Magnitude(group="row"), magnitude_by_hand),
    "magnitude of the matrix": (Magnitude(), magnitude_by_hand),
    "wanda": (Wanda(), wanda_by_hand),
    "mwanda": (MWanda(), mwanda_by_hand),
    "mwanda with all knobs": (MWanda(2.0, "mean", "standard_deviation", False, 1.0), mwanda_knobs_by_hand),
    "ria": (RIA(), ria_by_hand),
    "mria": (MRIA(16.0), mria_by_hand),
}


def comparison_groups(criterion: Criterion, pattern: Pattern) -> Iterator[list[Cell]]:
    """Yield the cells that compete with each other."""
    if isinstance(pattern, NOfM):
        for i, start in product(range(ROWS), range(0, FEATURES, pattern.of)):
            yield [(i, j) for j in range(start, start + pattern.of)]
    elif criterion.group == "matrix":
        yield list(product(range(ROWS), range(FEATURES)))
    else:
        yield from ([(i, j) for j in range(FEATURES)] for i in range(ROWS))


def mask_by_hand(scores: Array, groups: Iterator[list[Cell]], sparsity: float) -> list[list[bool]]:
    """Return the mask from a plain sort of each group by score and position."""
    mask = [[False] * FEATURES for _ in range(ROWS)]
    for group in groups:
        count = math.floor(Fraction(str(sparsity)) * len(group))
        for i, j in sorted(group, key=lambda cell: (scores[cell], cell))[:count]:
            mask[i][j] = True
    return mask


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CRITERIA)
def test_scores_equal_the_formula(name: str, seed: int) -> None:
    criterion, by_hand = CRITERIA[name]
    example = tied_example(seed)
    np.testing.assert_allclose(example.score(criterion).numpy(), by_hand(example), rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sparsity", [0.0, 0.29, 0.5, 0.6, 0.95])
@pytest.mark.parametrize("name", CRITERIA)
def test_unstructured_masks_equal_a_plain_loop(name: str, sparsity: float, seed: int) -> None:
    criterion, by_hand = CRITERIA[name]
    example, pattern = tied_example(seed), Unstructured()
    expected = mask_by_hand(by_hand(example), comparison_groups(criterion, pattern), sparsity)
    assert chosen(pattern, example.score(criterion), sparsity, criterion.group).tolist() == expected


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pattern", [NOfM(2, 4), NOfM(4, 8)], ids=["2of4", "4of8"])
@pytest.mark.parametrize("name", CRITERIA)
def test_n_of_m_masks_equal_a_plain_loop(name: str, pattern: NOfM, seed: int) -> None:
    criterion, by_hand = CRITERIA[name]
    example = tied_example(seed)
    expected = mask_by_hand(by_hand(example), comparison_groups(criterion, pattern), 0.5)
    assert chosen(pattern, example.score(criterion), 0.5, criterion.group).tolist() == expected


def test_the_example_ties_in_every_row() -> None:
    """Otherwise the comparisons above would say nothing about the order of equals."""
    for _, by_hand in CRITERIA.values():
        assert all(len(np.unique(row)) < FEATURES - 2 for row in by_hand(tied_example(0)))


def test_the_example_tells_the_criteria_apart() -> None:
    masks = [chosen(Unstructured(), tied_example(0).score(criterion), 0.6, "row") for criterion, _ in CRITERIA.values()]
    distinct = {tuple(mask.flatten().tolist()) for mask in masks}
    # The two kinds of magnitude differ in their group only.
    assert len(distinct) == len(CRITERIA) - 1


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_scores_are_non_negative_float32_and_leave_the_weight_alone(name: str, dtype: torch.dtype) -> None:
    example = tied_example(0)
    weight = torch.from_numpy(example.weight).to(dtype)
    before = weight.clone()
    scores = CRITERIA[name][0].score(weight, example.statistics)
    assert scores.dtype == torch.float32
    assert bool((scores >= 0).all())
    scores.fill_(7)
    assert torch.equal(weight, before)


@pytest.mark.parametrize("name", CRITERIA)
def test_criteria_keep_the_protocol(name: str) -> None:
    criterion = CRITERIA[name][0]
    assert isinstance(criterion, Criterion)
    assert criterion.group == ("matrix" if name == "magnitude of the matrix" else "row")
    expected = {
        "magnitude of the matrix": Needs.NOTHING,
        "magnitude of a row": Needs.NOTHING,
        "mwanda with all knobs": Needs.COUNTS,
    }
    assert criterion.needs == expected.get(name, Needs.NORMS)


def test_magnitude_needs_no_statistics() -> None:
    assert Magnitude().score(torch.tensor([[-2.0, 1.0]]), None).tolist() == [[2.0, 1.0]]


def uneven_languages(seed: int = 0) -> list[Array]:
    """Return inputs of three languages with different numbers of tokens and different loudness."""
    generator = np.random.default_rng(seed)
    scales = generator.uniform(0.1, 3, (3, FEATURES))
    return [
        (generator.normal(0.2, 1, (tokens, FEATURES)) * scale).astype(np.float32)
        for tokens, scale in zip((5, 12, 7), scales, strict=True)
    ]


def importance_by_formula(
    languages: list[Array], variance_weight: float, shared: Shared, disagreement: Disagreement, exponent: float
) -> list[float]:
    """Return `(A_j + λ·V_j) · P_j^β` of each feature in plain Python."""
    importance = []
    for j in range(FEATURES):
        columns = [[float(value) for value in inputs[:, j]] for inputs in languages]
        loud = [math.sqrt(sum(value**2 for value in column) / len(column)) for column in columns]
        mean = sum(loud) / len(loud)
        variance = sum((value - mean) ** 2 for value in loud) / len(loud)
        everything = [value for column in columns for value in column]
        pooled = math.sqrt(sum(value**2 for value in everything) / len(everything))
        shares = [sum(value > 0 for value in column) / len(column) for column in columns]
        shared_part = pooled if shared == "pooled" else mean
        differing = variance if disagreement == "variance" else math.sqrt(variance)
        importance.append((shared_part + variance_weight * differing) * (sum(shares) / len(shares)) ** exponent)
    return importance


@pytest.mark.parametrize("exponent", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("disagreement", ["variance", "standard_deviation"])
@pytest.mark.parametrize("shared", ["pooled", "mean"])
@pytest.mark.parametrize("variance_weight", [0.0, 0.5, 3.0])
def test_every_knob_of_mwanda_enters_as_the_formula_says(
    variance_weight: float, shared: Shared, disagreement: Disagreement, exponent: float
) -> None:
    """The scores hold the constant `√N`, as Wanda's do."""
    languages = uneven_languages()
    criterion = MWanda(variance_weight, shared, disagreement, normalised=False, probability_exponent=exponent)
    found = criterion.importance(statistics_of(*languages))
    formula = importance_by_formula(languages, variance_weight, shared, disagreement, exponent)
    root_tokens = math.sqrt(sum(len(inputs) for inputs in languages))
    np.testing.assert_allclose(found.numpy(), root_tokens * np.array(formula), rtol=1e-5)


@pytest.mark.parametrize(
    "knob",
    [
        {"variance_weight": 1.0},
        {"shared": "mean"},
        {"disagreement": "standard_deviation"},
        {"normalised": True},
        {"probability_exponent": 0.5},
    ],
    ids=lambda knob: next(iter(knob)),
)
def test_every_knob_of_mwanda_changes_the_ranking(knob: dict[str, float | str | bool]) -> None:
    statistics = statistics_of(*uneven_languages())
    default = MWanda().importance(statistics).argsort()
    assert not torch.equal(MWanda(**knob).importance(statistics).argsort(), default)  # type: ignore[arg-type]


@pytest.mark.parametrize("disagreement", ["variance", "standard_deviation"])
def test_normalised_disagreement_is_that_of_profiles_of_one_norm(disagreement: Disagreement) -> None:
    languages = uneven_languages()
    profiles = np.array([np.sqrt((inputs.astype(np.float64) ** 2).mean(axis=0)) for inputs in languages])
    lengths = np.sqrt((profiles**2).sum(axis=1))
    scaled = profiles / lengths[:, None] * lengths.mean()
    differing = scaled.var(axis=0) if disagreement == "variance" else scaled.std(axis=0)
    pooled = np.sqrt(sum((inputs.astype(np.float64) ** 2).sum(axis=0) for inputs in languages))
    found = MWanda(0.5, "pooled", disagreement, normalised=True).importance(statistics_of(*languages))
    tokens = sum(len(inputs) for inputs in languages)
    np.testing.assert_allclose(found.numpy(), pooled + 0.5 * math.sqrt(tokens) * differing, rtol=1e-5)


def test_normalised_disagreement_ignores_how_loud_a_language_is() -> None:
    inputs = uneven_languages()[0]
    statistics = statistics_of(inputs, 8 * inputs, inputs / 4)
    wanda = Wanda().score(torch.ones(1, FEATURES), statistics)[0]
    torch.testing.assert_close(MWanda(5.0, normalised=True).importance(statistics), wanda)
    assert bool((MWanda(5.0).importance(statistics) > 1.5 * wanda).all())


FLOATS = st.floats(-100, 100, width=32)
WEIGHTS = arrays(np.float32, (3, 8), elements=FLOATS)


@PROPERTY
@given(
    weight=WEIGHTS,
    inputs=arrays(np.float32, st.tuples(st.integers(1, 6), st.just(8)), elements=FLOATS),
    criterion=st.builds(
        MWanda,
        variance_weight=st.sampled_from([0.0, 0.5, 100.0]),
        shared=st.sampled_from(["pooled", "mean"]),
        disagreement=st.sampled_from(["variance", "standard_deviation"]),
        normalised=st.booleans(),
    ),
)
def test_mwanda_with_one_language_equals_wanda_bit_for_bit(weight: Array, inputs: Array, criterion: MWanda) -> None:
    statistics = statistics_of(inputs)
    scores = criterion.score(torch.from_numpy(weight), statistics)
    expected = Wanda().score(torch.from_numpy(weight), statistics)
    assert torch.equal(scores, expected)
    for pattern in (Unstructured(), NOfM(2, 4), NOfM(4, 8)):
        mask = chosen(pattern, scores, 0.6, criterion.group)
        assert torch.equal(mask, chosen(pattern, expected, 0.6, Wanda.group))


@PROPERTY
@given(weight=WEIGHTS, inputs=arrays(np.float32, (3, 4, 8), elements=FLOATS), normalised=st.booleans())
def test_mwanda_without_variance_equals_wanda_bit_for_bit(weight: Array, inputs: Array, normalised: bool) -> None:
    example = Example(weight, inputs)
    criterion = MWanda(variance_weight=0.0, normalised=normalised)
    assert torch.equal(example.score(criterion), example.score(Wanda()))


def rank_of(scores: Float[Tensor, "1 in"], feature: int) -> int:
    """Return how many features score lower."""
    return int((scores[0] < scores[0, feature]).sum())


@pytest.mark.parametrize("shared", ["pooled", "mean"])
@pytest.mark.parametrize("disagreement", ["variance", "standard_deviation"])
@pytest.mark.parametrize("normalised", [False, True])
def test_a_feature_of_one_language_ranks_higher_than_under_wanda(
    shared: Shared, disagreement: Disagreement, normalised: bool
) -> None:
    """The feature 0 is loud in one language and silent in the others; the rest differ little between languages."""
    generator = np.random.default_rng(0)
    inputs = generator.uniform(0.9, 1.1, (LANGUAGES, TOKENS, FEATURES)).astype(np.float32)
    inputs[:, :, 0] = 0
    inputs[2, :, 0] = 1.7
    example = Example(np.ones((1, FEATURES), dtype=np.float32), inputs)
    criterion = MWanda(2.0, shared, disagreement, normalised)
    assert rank_of(example.score(Wanda()), 0) == 0
    assert rank_of(example.score(criterion), 0) == FEATURES - 1


@PROPERTY
@given(shares=st.lists(st.floats(0, 1, width=32), min_size=LANGUAGES, max_size=LANGUAGES))
def test_of_two_features_with_one_pooled_norm_the_more_specific_never_scores_lower(shares: list[float]) -> None:
    total = sum(share**2 for share in shares)
    even = math.sqrt(total / LANGUAGES)
    inputs = np.array([[[share, even]] for share in shares], dtype=np.float32)
    specific, shared = MWanda().importance(statistics_of(*inputs)).tolist()
    assert specific >= shared * (1 - 1e-6)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.7])
def test_ria_equals_its_formula(exponent: float) -> None:
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(ROWS, FEATURES)).astype(np.float32)
    example = Example(weight, generator.normal(size=(LANGUAGES, TOKENS, FEATURES)).astype(np.float32))
    magnitude = np.abs(weight.astype(np.float64))
    relative = magnitude / magnitude.sum(axis=0) + magnitude / magnitude.sum(axis=1, keepdims=True)
    expected = relative * np.sqrt((example.inputs.astype(np.float64) ** 2).sum(axis=(0, 1))) ** exponent
    np.testing.assert_allclose(example.score(RIA(exponent)).numpy(), expected, rtol=1e-5)


def test_ria_gives_zero_to_rows_and_columns_of_zeros() -> None:
    scores = tied_example(0).score(RIA())
    assert scores[1].tolist() == [0.0] * FEATURES
    assert scores[:, 3].tolist() == [0.0] * ROWS


def test_silent_inputs_give_finite_scores() -> None:
    example = Example(np.ones((ROWS, FEATURES), np.float32), np.zeros((LANGUAGES, TOKENS, FEATURES), np.float32))
    for criterion in (Wanda(), RIA(), MRIA(), MWanda(normalised=True, probability_exponent=0.5), MWanda(shared="mean")):
        assert example.score(criterion).tolist() == [[0.0] * FEATURES] * ROWS
