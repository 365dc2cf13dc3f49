"""Schedules meet the budget exactly, stay within bounds, and follow their signal."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any, Literal, cast

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import spearmanr

from mwanda.schedules import BlockMatrix, Schedule
from mwanda.schedules.alphapruning import AlphaPruning
from mwanda.schedules.atp import ATP
from mwanda.schedules.base import Level, Looks, project, spread
from mwanda.schedules.cwl import CWL, Similarity, mean_similarity
from mwanda.schedules.dlp import DLP
from mwanda.schedules.fisher import Fisher
from mwanda.schedules.lsa import LSA
from mwanda.schedules.owl import OWL, outlier_ratio
from mwanda.schedules.owl_cwl import OWLCWL
from mwanda.schedules.uniform import Uniform
from mwanda.statistics import LanguageStatistics, LanguageWeights, Needs


PROPERTY = settings(deadline=None, derandomize=True, max_examples=150)
SCHEDULES: dict[str, Schedule] = {
    "uniform": Uniform(),
    "owl": OWL(),
    "cwl": CWL(),
    "owl_cwl": OWLCWL(),
    "alphapruning": AlphaPruning(),
    "atp": ATP(width=0.0),
    "dlp": DLP(),
    "lsa": LSA(),
    "fisher": Fisher(),
}
NEAR_THE_ENDS = [0.0, 1e-12, 1e-6, 1e-3, 0.999, 0.9991, 0.9995, 1 - 1e-6, 1 - 1e-9]

Profiles = NDArray[np.float64]


def shares_of(sizes: Sequence[int]) -> list[float]:
    """Return each block's share of all weights."""
    return [size / sum(sizes) for size in sizes]


def weighted(shares: Sequence[float], sparsities: Sequence[float]) -> float:
    """Return the sparsity over all blocks."""
    return sum(share * sparsity for share, sparsity in zip(shares, sparsities, strict=True))


def assert_valid(sparsities: Sequence[float], shares: Sequence[float], target: float, lower: Sequence[float]) -> None:
    """Check the budget and the bounds."""
    assert abs(weighted(shares, sparsities) - target) < 1e-9
    assert all(floor <= sparsity < 1 for floor, sparsity in zip(lower, sparsities, strict=True))


@st.composite
def budgets(draw: st.DrawFn) -> tuple[list[float], float, list[float]]:
    """Draw shares of blocks of different sizes, a target, and zeros that leave room for it."""
    sizes = draw(st.lists(st.integers(1, 1000), min_size=1, max_size=6))
    shares = shares_of(sizes)
    lower = [draw(st.one_of(st.just(0.0), st.floats(0, 0.99))) for _ in sizes]
    zeros = weighted(shares, lower)
    rest = draw(st.one_of(st.floats(0, 0.999), st.sampled_from(NEAR_THE_ENDS)))
    return shares, min(zeros + rest * (1 - zeros), 1 - 1e-9), lower


SIGNALS = st.one_of(st.floats(-1, 1), st.floats(-1e6, 1e6), st.sampled_from([0.0, 0.5]))
WIDTHS = st.one_of(st.floats(0, 1), st.floats(0, 100))


@PROPERTY
@given(budget=budgets(), width=WIDTHS, data=st.data())
def test_projection_meets_the_budget_within_bounds(
    budget: tuple[list[float], float, list[float]], width: float, data: st.DataObject
) -> None:
    shares, target, lower = budget
    signal = data.draw(st.lists(SIGNALS, min_size=len(shares), max_size=len(shares)))
    assert_valid(project(spread(signal, width), shares, target, lower), shares, target, lower)


@pytest.mark.parametrize("target", NEAR_THE_ENDS)
@pytest.mark.parametrize("sizes", [[1], [1, 1, 1], [437, 836, 64], [94, 974, 190, 816]])
@pytest.mark.parametrize("width", [0.0, 0.08, 5.0])
def test_projection_holds_for_targets_near_zero_and_one(target: float, sizes: list[int], width: float) -> None:
    shares, lower = shares_of(sizes), [0.0] * len(sizes)
    signal = [math.sin(3.0 * block) for block in range(len(sizes))]
    assert_valid(project(spread(signal, width), shares, target, lower), shares, target, lower)


@PROPERTY
@given(budget=budgets(), data=st.data())
def test_a_stronger_signal_never_gives_a_higher_sparsity(
    budget: tuple[list[float], float, list[float]], data: st.DataObject
) -> None:
    shares, target, _ = budget
    signal = data.draw(st.lists(SIGNALS, min_size=len(shares), max_size=len(shares)))
    sparsities = project(spread(signal, 0.3), shares, target, [0.0] * len(shares))
    by_signal = [sparsity for _, sparsity in sorted(zip(signal, sparsities, strict=True), reverse=True)]
    # The shift is rounded once for each block.
    assert all(second >= first - 1e-12 for first, second in pairwise(by_signal))


def test_projection_shifts_by_one_constant_where_no_bound_is_met() -> None:
    relative, shares = [0.0, -0.1, -0.16], shares_of([5, 2, 3])
    sparsities = project(relative, shares, 0.5, [0.0] * 3)
    shift = 0.5 - weighted(shares, relative)
    assert sparsities == pytest.approx([value + shift for value in relative], abs=1e-12)


def test_a_block_with_more_zeros_than_its_share_keeps_them_and_the_others_give_way() -> None:
    sparsities = project([0.0, 0.0], [0.5, 0.5], 0.5, [0.8, 0.0])
    assert sparsities == pytest.approx([0.8, 0.2], abs=1e-12)


def test_a_target_that_the_zeros_meet_already_removes_nothing() -> None:
    lower = [0.3, 0.7]
    assert project([0.0, -0.2], [0.5, 0.5], weighted([0.5, 0.5], lower), lower) == pytest.approx(lower, abs=1e-12)


def test_spread_spans_twice_the_width_and_the_strongest_is_lowest() -> None:
    values = spread([3.0, 1.0, 2.0], 0.08)
    assert values == pytest.approx([-0.16, 0.0, -0.08])


@pytest.mark.parametrize("signal", [[0.7, 0.7, 0.7], [0.0, 0.0, 0.0], [math.nan] * 3, [0.1, math.nan, 0.3]])
def test_equal_and_undefined_signals_are_not_spread(signal: list[float]) -> None:
    assert spread(signal, 0.08) == [0.0, 0.0, 0.0]


def columns(*values: float, signals: int) -> list[tuple[float, ...]]:
    """Return each block's signals, the same value repeated as often as the schedule has signals."""
    return [(value,) * signals for value in values]


SIGNAL_COUNTS = {"uniform": 0, "atp": 0, "owl_cwl": 2, "fisher": 3} | dict.fromkeys(
    ("owl", "cwl", "alphapruning", "dlp", "lsa"), 1
)
LOOKS: dict[str, Looks] = {"uniform": "nothing", "atp": "nothing", "alphapruning": "weights", "fisher": "gradients"}
LEVELS: list[Level] = ["block", "matrix"]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_knows_both_levels(name: str, level: Level) -> None:
    assert replace(cast(Any, SCHEDULES[name]), level=level).level == level


@pytest.mark.parametrize("value", [0.0, 0.9, math.nan])
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_is_uniform_when_all_signals_tie_or_are_undefined(name: str, value: float) -> None:
    shares = shares_of([3, 5, 9])
    # Damage is a sum over weights: it ties when it is the same for each of them.
    values = [value * share for share in shares] if name == "fisher" else [value] * 3
    found = SCHEDULES[name].allocate(columns(*values, signals=SIGNAL_COUNTS[name]), shares, 0.6, [0.0] * 3)
    assert found == pytest.approx([0.6] * 3, abs=1e-12)


@PROPERTY
@given(budget=budgets(), name=st.sampled_from(sorted(SCHEDULES)), data=st.data())
def test_every_schedule_meets_the_budget(
    budget: tuple[list[float], float, list[float]], name: str, data: st.DataObject
) -> None:
    shares, target, lower = budget
    signal = st.tuples(*[st.one_of(SIGNALS, st.just(math.nan))] * SIGNAL_COUNTS[name])
    signals = data.draw(st.lists(signal, min_size=len(shares), max_size=len(shares)))
    assert_valid(SCHEDULES[name].allocate(signals, shares, target, lower), shares, target, lower)


@pytest.mark.parametrize("target", [0.0, 0.29, 0.5, 0.999])
def test_uniform_gives_exactly_the_target(target: float) -> None:
    assert Uniform().allocate([], shares_of([1, 2, 4]), target, [0.0] * 3) == [target] * 3


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_keep_the_protocol(name: str) -> None:
    schedule = SCHEDULES[name]
    assert isinstance(schedule, Schedule)
    assert schedule.looks_at == LOOKS.get(name, "inputs")
    assert (schedule.needs == Needs.NOTHING) == (schedule.looks_at != "inputs")
    matrix = block_matrix(np.eye(4), np.ones((4, 4)) + np.eye(4))
    assert len(schedule.signal([matrix, matrix])) == SIGNAL_COUNTS[name]


def published_owl(outliers: Sequence[float], target: float, width: float) -> NDArray[np.float64]:
    """Return the sparsities of the published code of OWL."""
    ratio = np.array(outliers)
    ratio = (ratio - ratio.min()) * (1 / (ratio.max() - ratio.min()) * width * 2)
    return np.asarray(1 - (ratio - ratio.mean() + (1 - target)))


@PROPERTY
@given(
    outliers=st.lists(st.floats(0, 0.2), min_size=2, max_size=12),
    target=st.floats(0.25, 0.75),
    width=st.floats(0.001, 0.1),
)
def test_owl_equals_the_published_map_for_equal_blocks(outliers: list[float], target: float, width: float) -> None:
    assume(max(outliers) - min(outliers) > 1e-6)
    blocks = len(outliers)
    found = OWL(width=width).allocate([(value,) for value in outliers], [1 / blocks] * blocks, target, [0.0] * blocks)
    np.testing.assert_allclose(found, published_owl(outliers, target, width), rtol=0, atol=1e-9)


def block_matrix(weight: Profiles, profiles: Profiles) -> BlockMatrix:
    """Return a matrix whose languages each saw one token that is their profile."""
    languages, features = profiles.shape
    statistics = LanguageStatistics.zeros(languages, features, needs=Needs.COUNTS | Needs.SECOND_MOMENTS)
    statistics.sum_squares += torch.from_numpy(profiles).double().square()
    statistics.tokens += 1
    assert statistics.second_moment is not None
    statistics.second_moment += torch.from_numpy(profiles.T @ profiles).float()
    return BlockMatrix(torch.from_numpy(weight).float(), statistics, torch.ones(languages, 3))


def test_outlier_ratio_equals_a_count_by_hand() -> None:
    """The mean of the ten scores is 2: 7 and 9 exceed 2 · 2, only 9 exceeds 4 · 2, and none 5 · 2."""
    scores = [torch.tensor([[1.0, 0.0, 1.0], [7.0, 0.0, 1.0]]), torch.tensor([[9.0, 0.0], [1.0, 0.0]])]
    assert outlier_ratio(lambda: scores, 2.0) == pytest.approx(2 / 10)
    assert outlier_ratio(lambda: scores, 4.0) == pytest.approx(1 / 10)
    assert outlier_ratio(lambda: scores, 5.0) == 0.0


def test_a_score_equal_to_the_threshold_is_no_outlier() -> None:
    scores = [torch.tensor([[4.0, 0.0, 0.0, 0.0]])]
    assert outlier_ratio(lambda: scores, 4.0) == 0.0
    assert outlier_ratio(lambda: scores, 3.9) == 0.25


def test_owl_counts_outliers_among_the_wanda_scores_of_the_whole_block() -> None:
    """The norms are (5, 1): the scores are 5, 1, 10, 2 and 0, 1, their mean 19 / 6."""
    profiles = np.array([[3.0, 1.0], [4.0, 0.0]])
    matrices = [
        block_matrix(np.array([[1.0, -1.0], [-2.0, 2.0]]), profiles),
        block_matrix(np.array([[0.0, 1.0]]), profiles),
    ]
    assert OWL(outlier_threshold=3.0).signal(matrices)[0] == pytest.approx(1 / 6)
    assert OWL(outlier_threshold=1.5).signal(matrices)[0] == pytest.approx(2 / 6)


def cosine(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))


def pearson(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return float(np.corrcoef(first, second)[0, 1])


def spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return float(spearmanr(first, second).statistic)


PAIRWISE: dict[Similarity, Callable[[NDArray[np.float64], NDArray[np.float64]], float]] = {
    "pearson": pearson,
    "cosine": cosine,
    "spearman": spearman,
}


def mean_over_pairs(profiles: Profiles, similarity: Similarity) -> float:
    """Return the mean of the similarity of each pair, one pair after the other."""
    return float(np.mean([PAIRWISE[similarity](first, second) for first, second in combinations(profiles, 2)]))


PROFILES = arrays(
    np.float64,
    st.tuples(st.integers(2, 6), st.integers(3, 10)),
    # Few distinct values give ties between ranks.
    elements=st.one_of(st.integers(0, 4).map(float), st.floats(0, 100)),
)


@pytest.mark.parametrize("similarity", PAIRWISE)
@PROPERTY
@given(profiles=PROFILES)
def test_mean_similarity_equals_the_mean_over_pairs(similarity: Similarity, profiles: Profiles) -> None:
    assume((profiles.std(axis=1) > 1e-3).all())
    found = mean_similarity(torch.from_numpy(profiles), similarity).item()
    assert found == pytest.approx(mean_over_pairs(profiles, similarity), abs=1e-9)


@pytest.mark.parametrize("similarity", PAIRWISE)
def test_mean_similarity_of_many_languages_equals_the_mean_over_pairs(similarity: Similarity) -> None:
    profiles = np.random.default_rng(0).gamma(2.0, size=(60, 32))
    found = mean_similarity(torch.from_numpy(profiles), similarity).item()
    assert found == pytest.approx(mean_over_pairs(profiles, similarity), abs=1e-9)


@pytest.mark.parametrize("similarity", PAIRWISE)
def test_a_pair_of_languages_weighs_what_both_do(similarity: Similarity) -> None:
    profiles, votes = np.random.default_rng(0).gamma(2.0, size=(5, 32)), [1.0, 2.0, 0.5, 3.0, 1.5]
    pairs = list(combinations(range(5), 2))
    likeness = [mean_over_pairs(profiles[list(pair)], similarity) for pair in pairs]
    expected = np.average(likeness, weights=[votes[one] * votes[other] for one, other in pairs])
    found = mean_similarity(torch.from_numpy(profiles), similarity, torch.tensor(votes)).item()
    assert found == pytest.approx(expected, abs=1e-9)


def test_languages_of_no_weight_have_no_say_in_their_similarity() -> None:
    profiles = torch.from_numpy(np.random.default_rng(0).gamma(2.0, size=(4, 32)))
    tokens = torch.full((4,), 10)
    weight = torch.ones(2, 32)
    some = LanguageStatistics(profiles.square() * 10, tokens, weighting=LanguageWeights((1.0, 0.0, 1.0, 1.0)))
    left = LanguageStatistics(profiles[[0, 2, 3]].square() * 10, tokens[:3])
    assert CWL().signal([BlockMatrix(weight, some)]) == pytest.approx(CWL().signal([BlockMatrix(weight, left)]))


@pytest.mark.parametrize("similarity", PAIRWISE)
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e14])
def test_similarity_does_not_depend_on_the_scale_of_the_profiles(similarity: Similarity, scale: float) -> None:
    profiles = np.random.default_rng(0).gamma(2.0, size=(4, 8))
    found = mean_similarity(torch.from_numpy(scale * profiles), similarity).item()
    assert found == pytest.approx(mean_over_pairs(profiles, similarity), abs=1e-9)


@pytest.mark.parametrize("similarity", PAIRWISE)
def test_similarity_of_equal_profiles_is_one_and_of_one_language_undefined(similarity: Similarity) -> None:
    profile = torch.tensor([[1.0, 3.0, 2.0]])
    assert mean_similarity(profile.repeat(3, 1), similarity).item() == pytest.approx(1.0)
    assert math.isnan(mean_similarity(profile, similarity))


@pytest.mark.parametrize("similarity", ["pearson", "spearman"])
@PROPERTY
@given(constants=st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), others=st.integers(1, 4), features=st.integers(2, 40))
def test_constant_profiles_are_similar_to_none_and_not_to_each_other(
    similarity: Similarity, constants: tuple[float, float], others: int, features: int
) -> None:
    """Only the pairs among the `others`, which are equal, count, and they count one."""
    profiles = torch.arange(features, dtype=torch.float64).repeat(others + 2, 1)
    profiles[0], profiles[1] = constants
    expected = math.comb(others, 2) / math.comb(others + 2, 2)
    assert mean_similarity(profiles, similarity).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("similarity", PAIRWISE)
def test_silent_profiles_have_similarity_zero(similarity: Similarity) -> None:
    assert mean_similarity(torch.zeros(3, 5), similarity).item() == 0.0


def random_block(seed: int, shapes: Sequence[tuple[int, int]] = ((4, 8), (6, 12))) -> list[BlockMatrix]:
    """Return the matrices of one block with the profiles of four languages."""
    generator = np.random.default_rng(seed)
    return [block_matrix(generator.normal(size=shape), generator.gamma(2.0, size=(4, shape[1]))) for shape in shapes]


def similarities(block: Sequence[BlockMatrix]) -> list[float]:
    """Return the mean correlation of each matrix of a block, pair by pair."""
    return [mean_over_pairs(matrix.statistics.sum_squares.sqrt().numpy(), "pearson") for matrix in block]


def test_cwl_signal_is_the_mean_over_the_matrices_of_a_block() -> None:
    block = random_block(0)
    first, second = similarities(block)
    assert CWL().signal(block)[0] == pytest.approx((first + second) / 2, abs=1e-6)
    by_size = (32 * first + 72 * second) / 104
    assert CWL(weighting="size").signal(block)[0] == pytest.approx(by_size, abs=1e-6)
    assert abs(by_size - (first + second) / 2) > 1e-3


@pytest.mark.parametrize("similarity", PAIRWISE)
def test_cwl_uses_the_similarity_that_is_asked_for(similarity: Similarity) -> None:
    block = random_block(1, shapes=[(4, 8)])
    profiles = block[0].statistics.sum_squares.sqrt().numpy()
    found = CWL(similarity=similarity).signal(block)[0]
    assert found == pytest.approx(mean_over_pairs(profiles, similarity), abs=1e-6)


def signals_of(schedule: Schedule, blocks: Sequence[Sequence[BlockMatrix]]) -> list[Sequence[float]]:
    """Return the signals of all blocks."""
    return [schedule.signal(block) for block in blocks]


def allocated(schedule: Schedule, blocks: Sequence[Sequence[BlockMatrix]]) -> list[float]:
    """Return the sparsities at 50 % of blocks with different shares."""
    shares = shares_of(range(2, 2 + len(blocks)))
    return schedule.allocate(signals_of(schedule, blocks), shares, 0.5, [0.0] * len(blocks))


def agreeing_blocks() -> list[list[BlockMatrix]]:
    """Return blocks in which languages agree less and less."""
    generator = np.random.default_rng(0)
    common = generator.gamma(2.0, size=(1, 16))
    return [
        [block_matrix(generator.normal(size=(4, 16)), common + noise * generator.gamma(2.0, size=(4, 16)))]
        for noise in (0.1, 0.5, 1.0, 3.0)
    ]


def test_cwl_keeps_more_where_languages_agree_and_protect_specific_reverses_the_order() -> None:
    blocks = agreeing_blocks()
    shared, specific = allocated(CWL(), blocks), allocated(CWL(protect="specific"), blocks)
    assert np.argsort(shared).tolist() == [0, 1, 2, 3]
    assert np.argsort(specific).tolist() == [3, 2, 1, 0]
    assert max(shared) - min(shared) == pytest.approx(2 * 0.08)
    assert max(specific) - min(specific) == pytest.approx(2 * 0.08)


def test_cwl_with_one_language_is_uniform() -> None:
    generator = np.random.default_rng(0)
    blocks = [[block_matrix(np.ones((2, 8)), generator.gamma(2.0, size=(1, 8)))] for _ in range(3)]
    assert all(math.isnan(signal) for (signal,) in signals_of(CWL(), blocks))
    assert allocated(CWL(), blocks) == pytest.approx([0.5] * 3, abs=1e-12)


@pytest.mark.parametrize("protect", ["shared", "specific"])
def test_owl_cwl_has_both_signals_and_its_ends_are_owl_and_cwl(protect: Literal["shared", "specific"]) -> None:
    blocks = [random_block(seed) for seed in range(5)]
    owl, cwl = OWL(outlier_threshold=2.0, width=0.1), CWL(protect, width=0.1)
    both = [OWLCWL(2.0, protect, 0.1, cwl_weight=weight) for weight in (0.0, 1.0)]
    expected = [(*owl.signal(block), *cwl.signal(block)) for block in blocks]
    assert signals_of(both[0], blocks) == expected
    assert allocated(both[0], blocks) == allocated(owl, blocks)
    assert allocated(both[1], blocks) == allocated(cwl, blocks)
    assert allocated(owl, blocks) != pytest.approx(allocated(cwl, blocks), abs=1e-3)


def test_owl_cwl_lies_between_owl_and_cwl_by_its_weight() -> None:
    blocks = [random_block(seed) for seed in range(5)]
    owl, cwl = allocated(OWL(2.0), blocks), allocated(CWL(), blocks)
    mixed = allocated(OWLCWL(2.0, cwl_weight=0.3), blocks)
    assert mixed == pytest.approx([0.7 * a + 0.3 * b for a, b in zip(owl, cwl, strict=True)], abs=1e-12)
