"""Streamed language statistics equal those of all inputs at once."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float, Int
from numpy.typing import NDArray
from pretend_device import Pretend, pretend
from torch import Tensor
from tracked_memory import Tracked

from mwanda.statistics import (
    LanguageStatistics,
    Needs,
    SequenceSums,
    activation_probability,
    language_root_mean_square,
    pooled_norm,
)
from mwanda.statistics import second_moment as moments
from mwanda.statistics.language import add_by_language, reduce_anywhere, reduce_on_cpu
from mwanda.statistics.second_moment import mirror, upper_moment


PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)


def random_inputs(sequences: int, tokens: int, features: int, seed: int = 0) -> Float[Tensor, "B T I"]:
    """Return inputs with both signs, exact zeros and features of very different size."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(sequences, tokens, features, generator=generator)
    inputs[torch.rand(inputs.shape, generator=generator) < 0.2] = 0.0
    return inputs * torch.logspace(-3, 3, features)


def stream(
    inputs: Float[Tensor, "B T I"], labels: Int[Tensor, " B"], languages: int, batch_size: int
) -> LanguageStatistics:
    """Return the statistics of `inputs` given batch by batch."""
    statistics = LanguageStatistics.zeros(languages, inputs.shape[2])
    for part, part_labels in zip(torch.split(inputs, batch_size), torch.split(labels, batch_size), strict=True):
        statistics.add(SequenceSums.of(part), part_labels)
    return statistics


def tokens_of(inputs: Float[Tensor, "B T I"], labels: Int[Tensor, " B"], language: int) -> NDArray[np.float64]:
    """Return all tokens of one language as the full matrix tokens × features."""
    return inputs[labels == language].reshape(-1, inputs.shape[2]).double().numpy()


def assert_same(first: LanguageStatistics, second: LanguageStatistics) -> None:
    """Compare counts exactly and sums to the rounding of float64."""
    assert torch.equal(first.positive, second.positive)
    assert torch.equal(first.nonzero, second.nonzero)
    assert torch.equal(first.tokens, second.tokens)
    torch.testing.assert_close(first.sum_squares, second.sum_squares, rtol=1e-13, atol=0)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 20])
def test_streamed_statistics_equal_those_of_the_full_matrix(batch_size: int) -> None:
    inputs = random_inputs(sequences=20, tokens=9, features=16)
    labels = torch.arange(20) % 3
    statistics = stream(inputs, labels, languages=3, batch_size=batch_size)
    for language in range(3):
        full = tokens_of(inputs, labels, language)
        np.testing.assert_allclose(statistics.sum_squares[language].numpy(), (full**2).sum(axis=0), rtol=1e-6)
        np.testing.assert_array_equal(statistics.positive[language].numpy(), (full > 0).sum(axis=0))
        np.testing.assert_array_equal(statistics.nonzero[language].numpy(), (full != 0).sum(axis=0))
        assert statistics.tokens[language] == full.shape[0]


def test_derived_quantities_equal_those_of_the_full_matrix() -> None:
    inputs = random_inputs(sequences=14, tokens=6, features=16, seed=1)
    labels = torch.tensor([0] * 9 + [1] * 2 + [2] * 3)
    statistics = stream(inputs, labels, languages=3, batch_size=4)
    parts = [tokens_of(inputs, labels, language) for language in range(3)]
    everything = np.concatenate(parts)
    np.testing.assert_allclose(pooled_norm(statistics).numpy(), np.linalg.norm(everything, axis=0), rtol=1e-6)
    np.testing.assert_allclose(
        language_root_mean_square(statistics).numpy(), [np.sqrt((part**2).mean(axis=0)) for part in parts], rtol=1e-6
    )
    np.testing.assert_allclose(
        activation_probability(statistics).numpy(), [(part > 0).mean(axis=0) for part in parts], rtol=1e-6
    )


@PROPERTY
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    batch_sizes=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    seed=st.integers(0, 1000),
)
def test_batch_order_and_batch_size_do_not_matter(labels: list[int], batch_sizes: tuple[int, int], seed: int) -> None:
    inputs, languages = random_inputs(len(labels), tokens=5, features=8, seed=seed), torch.tensor(labels)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    first = stream(inputs, languages, languages=4, batch_size=batch_sizes[0])
    second = stream(inputs[order], languages[order], languages=4, batch_size=batch_sizes[1])
    assert_same(first, second)


@PROPERTY
@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=12), seed=st.integers(0, 1000))
def test_pooled_norm_does_not_depend_on_the_division_into_languages(labels: list[int], seed: int) -> None:
    inputs = random_inputs(len(labels), tokens=5, features=8, seed=seed)
    divided = stream(inputs, torch.tensor(labels), languages=4, batch_size=4)
    together = stream(inputs, torch.zeros(len(labels), dtype=torch.int64), languages=1, batch_size=4)
    torch.testing.assert_close(pooled_norm(divided), pooled_norm(together), rtol=1e-6, atol=0)


def test_a_batch_may_mix_languages() -> None:
    inputs = random_inputs(sequences=6, tokens=4, features=8)
    labels = torch.tensor([2, 0, 2, 1, 1, 2])
    mixed = stream(inputs, labels, languages=3, batch_size=6)
    sorted_by_language = LanguageStatistics.zeros(3, 8)
    for language in range(3):
        part = inputs[labels == language]
        sorted_by_language.add(SequenceSums.of(part), torch.full((len(part),), language))
    assert_same(mixed, sorted_by_language)


def test_many_languages_with_one_sequence_each() -> None:
    inputs = random_inputs(sequences=300, tokens=3, features=8)
    statistics = stream(inputs, torch.arange(300), languages=300, batch_size=16)
    assert statistics.languages == 300
    np.testing.assert_allclose(statistics.sum_squares.numpy(), (inputs.double() ** 2).sum(dim=1).numpy(), rtol=1e-6)
    assert torch.equal(statistics.positive, (inputs > 0).sum(dim=1))
    assert statistics.tokens.tolist() == [3] * 300


def test_batches_of_different_length_count_their_own_tokens() -> None:
    statistics = LanguageStatistics.zeros(2, 4)
    long, short = torch.full((1, 6, 4), 2.0), torch.full((2, 3, 4), -1.0)
    statistics.add(SequenceSums.of(long), torch.tensor([0]))
    statistics.add(SequenceSums.of(short), torch.tensor([0, 1]))
    assert statistics.tokens.tolist() == [9, 3]
    torch.testing.assert_close(statistics.sum_squares[:, 0], torch.tensor([27.0, 3.0], dtype=torch.float64))
    assert statistics.positive[:, 0].tolist() == [6, 0]
    assert statistics.nonzero[:, 0].tolist() == [9, 3]


def test_an_unseen_language_has_zeros_and_no_division_by_zero() -> None:
    statistics = stream(random_inputs(4, 5, 8), torch.tensor([0, 0, 2, 2]), languages=3, batch_size=2)
    assert language_root_mean_square(statistics)[1].tolist() == [0.0] * 8
    assert activation_probability(statistics)[1].tolist() == [0.0] * 8
    assert bool(torch.isfinite(pooled_norm(statistics)).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_summed_in_float32(dtype: torch.dtype) -> None:
    """300 tokens of 16² overflow float16 and stick at 2^16 in bfloat16."""
    inputs = torch.full((1, 300, 2), 16.0, dtype=dtype)
    statistics = stream(inputs, torch.tensor([0]), languages=1, batch_size=1)
    torch.testing.assert_close(
        statistics.sum_squares, torch.full((1, 2), 76800.0, dtype=torch.float64), rtol=1e-6, atol=0
    )
    assert statistics.positive.tolist() == [[300, 300]]


def test_small_batches_are_not_lost_beside_a_large_sum() -> None:
    """A float32 accumulator would not grow from 2^26 when one is added."""
    statistics = LanguageStatistics.zeros(1, 1)
    statistics.add(SequenceSums.of(torch.full((1, 1, 1), 2.0**13)), torch.tensor([0]))
    for _ in range(8):
        statistics.add(SequenceSums.of(torch.ones(1, 1, 1)), torch.tensor([0]))
    assert statistics.sum_squares.item() == 2.0**26 + 8


def test_inputs_are_neither_changed_nor_tracked() -> None:
    inputs = random_inputs(2, 3, 4).requires_grad_()
    before = inputs.detach().clone()
    sums = SequenceSums.of(inputs)
    assert torch.equal(inputs, before)
    assert not sums.squares.requires_grad


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 5), (2, 300, 4)])
def test_sums_on_any_device_are_those_of_the_cpu(shape: tuple[int, int, int]) -> None:
    inputs = random_inputs(*shape)
    torch.testing.assert_close(reduce_anywhere(inputs).float(), reduce_on_cpu(inputs))
    exact = inputs.double().square().sum(dim=1).float()
    torch.testing.assert_close(reduce_on_cpu(inputs), exact)


@pytest.mark.parametrize("languages", [[2, 0, 2, 1, 2], [1, 1, 1, 1, 1], [0, 0, 2, 2, 3], [0, 1, 2, 3, 0]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.int64], ids=str)
@pytest.mark.parametrize("there", [False, True], ids=["languages here", "languages there"])
def test_languages_are_added_up_as_by_index(languages: list[int], dtype: torch.dtype, there: bool) -> None:
    """Elsewhere too, where that sorted first: some twenty kernels for each matrix and batch."""
    chosen, values = torch.tensor(languages), (random_inputs(1, 5, 6)[0] * 9).to(dtype)
    expected, tokens = torch.ones(4, 6, dtype=dtype), torch.ones(4, dtype=torch.int64)
    add_by_language(expected, chosen, values)
    assert not expected.equal(torch.ones(4, 6, dtype=dtype))
    with pretend() as waits:
        found, counted = Pretend(torch.ones(4, 6, dtype=dtype)), Pretend(tokens.clone())
        placed = Pretend(chosen.clone()) if there else chosen
        add_by_language(found, placed, Pretend(values.clone()))
        add_by_language(counted, placed, torch.full_like(placed, 7))
    assert waits.total == 0
    torch.testing.assert_close(found.values, expected, rtol=1e-14, atol=0)
    assert counted.values.tolist() == [1 + 7 * languages.count(each) for each in range(4)]


@pytest.mark.parametrize("first", Needs)
@pytest.mark.parametrize("second", Needs)
def test_two_needs_are_met_together(first: Needs, second: Needs) -> None:
    both = first | second
    statistics = LanguageStatistics.zeros(2, 3, needs=both)
    statistics.add(SequenceSums.of(random_inputs(1, 4, 3), both), torch.tensor([1]))
    for needs in (first, second):
        assert needs in both
        assert Needs.COUNTS not in needs or statistics.positive is not None
        assert Needs.SECOND_MOMENTS not in needs or bool(statistics.second_moment.any())


def test_sums_of_squares_are_part_of_all_that_is_needed_of_inputs() -> None:
    assert all(Needs.NORMS in needs for needs in Needs)
    assert Needs.COUNTS not in Needs.SECOND_MOMENTS
    assert not Needs.NOTHING


@pytest.mark.parametrize("features", [1, 8, 256, 257, 320, 640])
def test_second_moments_are_those_of_one_product_to_the_bit(features: int) -> None:
    """However they are made: what was pruned by them yesterday is pruned by them today."""
    rows = random_inputs(1, 40, features)[0]
    found = upper_moment(rows[None], None)
    mirror(found)
    assert torch.equal(found, rows.T @ rows)
    assert torch.equal(found, found.T)


@pytest.mark.parametrize("features", [1, 5, 8, 9])
def test_half_of_a_second_moment_is_added_up_and_mirrored_at_the_end(
    features: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moments, "BLOCK", 4)
    needs = Needs.SECOND_MOMENTS
    inputs, statistics = random_inputs(6, 5, features), LanguageStatistics.zeros(1, features, needs=needs)
    for part in inputs.split(2):
        sums = SequenceSums.of(part, needs)
        assert sums.second_moment is not None
        sums.second_moment[torch.ones(features, features).tril(-1).bool()] = torch.nan  # means nothing
        statistics.add(sums, torch.zeros(2, dtype=torch.int64))
    for _ in range(2):  # what is complete stays as it is
        statistics.complete()
        rows = inputs.flatten(0, 1)
        torch.testing.assert_close(statistics.second_moment, rows.T @ rows, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("tokens", [1, 256, 300, 1030])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_sums_of_squares_elsewhere_are_those_of_float64_and_make_nothing_of_full_size(
    tokens: int, dtype: torch.dtype
) -> None:
    """They made a copy in float32 and its squares: twelve bytes for each input where there are two."""
    inputs = torch.randn(3, tokens, 64, generator=torch.Generator().manual_seed(tokens)).to(dtype)
    expected = inputs.double().square().sum(dim=1)
    with Tracked() as tracked:
        found = reduce_anywhere(inputs)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    if dtype != torch.float64:
        assert tracked.peak <= 12 * 3 * 64 * 3 * (tokens // 256 + 2)


@pytest.mark.parametrize("largest", [1e18, 3e19, float("inf"), float("nan")])
@pytest.mark.parametrize("needs", [Needs.NORMS, Needs.SECOND_MOMENTS])
def test_what_overflows_is_not_finite(largest: float, needs: Needs) -> None:
    """Sums of squares go on in float64; second moments do not, and a solver would make something of infinity."""
    inputs, statistics = random_inputs(2, 300, 4), LanguageStatistics.zeros(1, 4, needs=needs)
    inputs[:, :, 2] = largest
    statistics.add(SequenceSums.of(inputs, needs), torch.zeros(2, dtype=torch.int64))
    assert statistics.finite == (largest == 1e18 and needs == Needs.NORMS)
