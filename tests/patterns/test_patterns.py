"""Patterns remove the lowest scores of each comparison group, exactly as many as asked for."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jaxtyping import Bool, Float
from selection import chosen, planned
from torch import Tensor

from mwanda.errors import ConfigurationError, SparsityError
from mwanda.patterns import Pattern
from mwanda.patterns.base import ComparisonGroup, count_to_remove, lowest
from mwanda.patterns.n_of_m import NOfM
from mwanda.patterns.unstructured import Unstructured


PROPERTY = settings(deadline=None, derandomize=True, max_examples=100)
TWO_OF_FOUR, FOUR_OF_EIGHT = NOfM(2, 4), NOfM(4, 8)
SPARSITIES = st.one_of(st.floats(0, 0.999), st.integers(0, 99).map(lambda percent: percent / 100))
GROUPS: st.SearchStrategy[ComparisonGroup] = st.sampled_from(["row", "matrix"])
# Few distinct values give many ties.
VALUES = st.one_of(st.integers(0, 3).map(float), st.floats(0, 1e6, width=32))


@st.composite
def score_matrices(draw: st.DrawFn, columns_of: int = 1) -> Float[Tensor, "out in"]:
    """Draw a matrix of scores whose width is a multiple of `columns_of`."""
    shape = (draw(st.integers(1, 5)), columns_of * draw(st.integers(1, max(1, 24 // columns_of))))
    return torch.from_numpy(draw(arrays(np.float32, shape, elements=VALUES)))


def exact_count(sparsity: float, size: int) -> int:
    """Return the floor of the product of a decimal sparsity and a size, without rounding."""
    return int(Fraction(str(sparsity)) * size)


def stable_selection(scores: Float[Tensor, "groups size"], count: int) -> Bool[Tensor, "groups size"]:
    """Mark the first `count` entries of each row's stable sort."""
    order = np.argsort(scores.numpy(), axis=1, kind="stable")[:, :count]
    selected = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(selected, order, True, axis=1)
    return torch.from_numpy(selected)


def zeros_after(scores: Float[Tensor, "out in"], removed: Bool[Tensor, "out in"]) -> int:
    """Return the zeros of the pruned matrix, when the scores are those of the weights themselves."""
    return int((scores.masked_fill(removed, 0) == 0).sum())


@PROPERTY
@given(st.data(), SPARSITIES)
def test_rows_get_what_they_are_given_and_the_matrix_its_budget(data: st.DataObject, sparsity: float) -> None:
    rows, size = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 30))
    zeros = torch.tensor(data.draw(st.lists(st.integers(0, size), min_size=rows, max_size=rows)), dtype=torch.int32)
    spread = data.draw(arrays(np.float64, rows, elements=st.floats(0, 1)))
    quota = Unstructured().quota(zeros, size, max(sparsity, float(zeros.sum()) / (rows * size)))
    found = quota.over_rows(torch.from_numpy(spread), size, zeros)
    wanted = float(spread.mean()) * size * rows
    assert wanted - 1 <= found.planned <= max(quota.planned, wanted + 1e-6)
    assert found.by_row is not None
    assert int(found.by_row.sum()) == found.planned >= quota.planned
    assert bool((found.by_row >= zeros).all())
    assert bool((found.by_row <= size).all())


def test_rows_are_as_near_to_their_sparsities_as_whole_numbers_allow() -> None:
    wanted, zeros = torch.tensor([0.25, 0.55, 0.3, 0.9]), torch.tensor([0, 0, 6, 0])
    found = Unstructured().quota(zeros, 10, 0.6).over_rows(wanted, 10, zeros)
    assert found.planned == 24
    assert found.by_row is not None
    assert found.by_row.tolist() == [3, 6, 6, 9]  # 2.5 and 5.5 are rounded up, as the third holds six already


def test_count_takes_decimal_sparsities_at_their_word() -> None:
    """0.29 · 100 is 28.999999999999996 in binary."""
    assert count_to_remove(0.29, 100) == 29


@PROPERTY
@given(percent=st.integers(0, 100), size=st.integers(1, 2**31))
def test_count_is_the_floor_for_whole_percentages_of_any_size(percent: int, size: int) -> None:
    assert count_to_remove(percent / 100, size) == percent * size // 100


@pytest.mark.parametrize(("sparsity", "size"), [(0.5, 2_000_000_001), (0.5, 872_415_231), (0.999, 99_999_999)])
def test_count_of_a_large_matrix_does_not_exceed_the_floor(sparsity: float, size: int) -> None:
    assert count_to_remove(sparsity, size) == exact_count(sparsity, size)


@PROPERTY
@given(scores=score_matrices(), count=st.integers(-1, 30))
def test_lowest_equals_a_stable_sort(scores: Float[Tensor, "out in"], count: int) -> None:
    assert torch.equal(lowest(scores, count), stable_selection(scores, max(count, 0)))


def test_among_equals_the_leftmost_go_first() -> None:
    scores = torch.tensor([[1.0, 0.0, 1.0, 1.0, 2.0, 1.0]])
    assert lowest(scores, 3).tolist() == [[True, True, True, False, False, False]]


@PROPERTY
@given(scores=score_matrices(), sparsity=SPARSITIES)
def test_each_row_loses_the_floor_of_its_share(scores: Float[Tensor, "out in"], sparsity: float) -> None:
    removed = chosen(Unstructured(), scores, sparsity, "row")
    assert removed.sum(dim=1).tolist() == [exact_count(sparsity, scores.shape[1])] * scores.shape[0]


@PROPERTY
@given(scores=score_matrices(), sparsity=SPARSITIES)
def test_the_whole_matrix_loses_the_floor_of_its_share(scores: Float[Tensor, "out in"], sparsity: float) -> None:
    removed = chosen(Unstructured(), scores, sparsity, "matrix")
    assert int(removed.sum()) == exact_count(sparsity, scores.numel())
    assert torch.equal(removed.reshape(1, -1), stable_selection(scores.reshape(1, -1), int(removed.sum())))


@PROPERTY
@given(scores=score_matrices(columns_of=8), pattern=st.sampled_from([TWO_OF_FOUR, FOUR_OF_EIGHT, NOfM(1, 4)]))
def test_each_group_keeps_n_of_m_and_the_highest(scores: Float[Tensor, "out in"], pattern: NOfM) -> None:
    removed = chosen(pattern, scores, 0.123, "row").reshape(-1, pattern.of)
    assert removed.sum(dim=1).tolist() == [pattern.of - pattern.keep] * removed.shape[0]
    assert torch.equal(removed, stable_selection(scores.reshape(-1, pattern.of), pattern.of - pattern.keep))


@PROPERTY
@given(scores=score_matrices(), sparsities=st.tuples(SPARSITIES, SPARSITIES), group=GROUPS)
def test_masks_are_nested_in_sparsity(
    scores: Float[Tensor, "out in"], sparsities: tuple[float, float], group: ComparisonGroup
) -> None:
    fewer, more = (chosen(Unstructured(), scores, sparsity, group) for sparsity in sorted(sparsities))
    assert not bool((fewer & ~more).any())


@PROPERTY
@given(scores=score_matrices(), sparsity=SPARSITIES, group=GROUPS)
def test_planned_zeros_are_those_found_after_unstructured_removal(
    scores: Float[Tensor, "out in"], sparsity: float, group: ComparisonGroup
) -> None:
    removed = chosen(Unstructured(), scores.masked_fill(scores == 0, -1), sparsity, group)
    assert planned(Unstructured(), scores == 0, sparsity, group) == zeros_after(scores, removed)


@PROPERTY
@given(scores=score_matrices(columns_of=8), pattern=st.sampled_from([TWO_OF_FOUR, FOUR_OF_EIGHT]))
def test_planned_zeros_are_those_found_after_n_of_m_removal(scores: Float[Tensor, "out in"], pattern: NOfM) -> None:
    removed = chosen(pattern, scores, 0.5, "row")
    assert planned(pattern, scores == 0, 0.5, "row") == zeros_after(scores, removed)


def test_zeros_beyond_the_target_are_made_up_for_by_other_rows_but_not_by_other_groups_of_m() -> None:
    """Two rows of four at one half are four zeros: three stand in the first row, so the second loses one."""
    zeros = torch.tensor([[True, True, True, False], [False, False, False, False]])
    assert planned(Unstructured(), zeros, 0.5, "row") == 4
    assert planned(Unstructured(), zeros, 0.5, "matrix") == 4
    assert planned(TWO_OF_FOUR, zeros, 0.5, "row") == 5


@PROPERTY
@given(
    scores=score_matrices(columns_of=8),
    pattern=st.sampled_from([Unstructured(), TWO_OF_FOUR, FOUR_OF_EIGHT]),
    sparsity=SPARSITIES,
    group=GROUPS,
)
def test_the_memory_layout_of_scores_does_not_matter(
    scores: Float[Tensor, "out in"], pattern: Pattern, sparsity: float, group: ComparisonGroup
) -> None:
    transposed = scores.t().contiguous().t()
    expected = chosen(pattern, scores, sparsity, group)
    assert torch.equal(chosen(pattern, transposed, sparsity, group), expected)
    assert planned(pattern, transposed == 0, sparsity, group) == planned(pattern, scores == 0, sparsity, group)


@pytest.mark.parametrize("pattern", [Unstructured(), TWO_OF_FOUR, FOUR_OF_EIGHT])
def test_scores_are_left_as_they_are(pattern: Pattern) -> None:
    scores = torch.rand(3, 16, generator=torch.Generator().manual_seed(0))
    before = scores.clone()
    removed = chosen(pattern, scores, 0.5, "row")
    assert int(removed.sum()) == 24
    assert torch.equal(scores, before)


def test_sparsity_zero_removes_nothing() -> None:
    assert not bool(chosen(Unstructured(), torch.zeros(2, 5), 0.0, "row").any())


def test_n_of_m_ignores_the_sparsity_and_the_comparison_group() -> None:
    scores = torch.rand(3, 16, generator=torch.Generator().manual_seed(0))
    groups: tuple[ComparisonGroup, ...] = ("row", "matrix")
    masks = [chosen(TWO_OF_FOUR, scores, sparsity, group) for sparsity in (0.0, 0.9) for group in groups]
    assert all(torch.equal(mask, masks[0]) for mask in masks)
    assert int(masks[0].sum()) == 24


@pytest.mark.parametrize("pattern", [Unstructured(), TWO_OF_FOUR])
def test_patterns_keep_the_protocol(pattern: object) -> None:
    assert isinstance(pattern, Pattern)


def test_names_and_fixed_sparsities() -> None:
    found = [(pattern.name, pattern.fixed_sparsity()) for pattern in (Unstructured(), TWO_OF_FOUR, NOfM(1, 4))]
    assert found == [("unstructured", None), ("2of4", 0.5), ("1of4", 0.75)]


def test_n_of_m_refuses_rows_that_do_not_divide() -> None:
    TWO_OF_FOUR.check((3, 8))
    with pytest.raises(SparsityError, match=r"2of4: rows of 6 inputs do not divide by 4"):
        TWO_OF_FOUR.check((8, 6))


def test_unstructured_accepts_rows_of_any_length() -> None:
    Unstructured().check((7, 13))
    assert chosen(Unstructured(), torch.rand(7, 13), 0.5, "row").sum(dim=1).tolist() == [6] * 7


@pytest.mark.parametrize(("keep", "of"), [(4, 4), (5, 4)])
def test_n_of_m_refuses_to_keep_everything(keep: int, of: int) -> None:
    with pytest.raises(ConfigurationError, match=r"pattern\.keep"):
        NOfM(keep, of)
