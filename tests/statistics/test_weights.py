"""Weights of languages: a weight of two is a language that stands twice in the set."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor

from mwanda.criteria import Criterion
from mwanda.criteria.mria import MRIA
from mwanda.criteria.mwanda import MWanda
from mwanda.criteria.ria import RIA
from mwanda.criteria.wanda import Wanda
from mwanda.statistics import (
    LanguageStatistics,
    LanguageWeights,
    Needs,
    SequenceSums,
    mean_and_variance,
    pooled,
    pooled_norm,
)
from mwanda.statistics.language import unit_tokens


ALL = Needs.COUNTS | Needs.SECOND_MOMENTS | Needs.MEANS
BALANCED = LanguageWeights(balanced=True)
CRITERIA: list[Criterion] = [
    Wanda(),
    RIA(),
    MWanda(),
    MWanda(shared="mean", probability_exponent=1.0),
    MWanda(normalised=True, disagreement="standard_deviation"),
    MRIA(),
]

every_criterion = pytest.mark.parametrize("criterion", CRITERIA, ids=repr)


def languages(sizes: tuple[int, ...] = (5, 7, 3), features: int = 8) -> list[Float[Tensor, "T I"]]:
    """Return the inputs of each language, one louder than the other."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(features, features, generator=generator)
    return [
        (2.0**place) * (torch.randn(size, features, generator=generator) + place) @ mixing
        for place, size in enumerate(sizes)
    ]


def statistics_of(
    inputs: list[Float[Tensor, "T I"]], weighting: LanguageWeights, token_weights: Float[Tensor, " L"] | None = None
) -> LanguageStatistics:
    statistics = LanguageStatistics.zeros(len(inputs), inputs[0].shape[1], needs=ALL, weighting=weighting)
    for language, part in enumerate(inputs):
        weights = None if token_weights is None else token_weights[language : language + 1]
        statistics.add(SequenceSums.of(part[None], ALL, weights), torch.tensor([language]))
    return statistics


def weighted(inputs: list[Float[Tensor, "T I"]], *given: float) -> LanguageStatistics:
    return statistics_of(inputs, LanguageWeights(given), torch.tensor(given, dtype=torch.float64))


def test_unit_tokens_have_one_size_and_silent_ones_none() -> None:
    inputs = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1e-6], [1.0], [1e4]])
    inputs[0, 1] = 0
    others = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1))
    found, scaled = unit_tokens(inputs, others)
    sizes = found.square().mean(dim=2).sqrt()
    torch.testing.assert_close(sizes, torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]]))
    torch.testing.assert_close(scaled[0, 2] / others[0, 2], (found[0, 2] / inputs[0, 2])[:5])
    assert scaled[0, 1].equal(others[0, 1])
    assert unit_tokens(inputs.bfloat16())[0].dtype == torch.float32


@pytest.mark.parametrize("own", [None, torch.tensor([1.0, 0.5, 2.0])], ids=["alike", "weighted"])
def test_a_thinned_moment_has_all_energy_and_the_correlations_of_some_tokens(own: Tensor | None) -> None:
    inputs = torch.randn(3, 10, 6, generator=torch.Generator().manual_seed(0)) * torch.rand(6)
    inputs[0, ::2, 1] = 0  # nothing is known of its correlations in this sequence
    weights = torch.ones(3) if own is None else own
    found = SequenceSums.of(inputs, Needs.SECOND_MOMENTS, own, moment_share=0.5).second_moment
    expected = torch.zeros(6, 6)
    for rows, weight in zip(inputs, weights, strict=True):
        some, energy = rows[::2], rows.square().sum(dim=0)
        chosen = some.square().sum(dim=0)
        scale = torch.where(chosen > 0, energy / chosen, 0).sqrt()
        part = scale[:, None] * (some.T @ some) * scale
        expected += weight * (part - part.diag().diag() + energy.diag())
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert torch.linalg.eigvalsh(found.double()).min() > -1e-5
    assert not torch.allclose(found, SequenceSums.of(inputs, Needs.SECOND_MOMENTS, own).second_moment, rtol=1e-2)


def test_an_input_that_is_next_to_silent_at_the_chosen_tokens_correlates_with_none() -> None:
    """Its few values are not blown up to all of its energy, which float32 could not hold."""
    inputs = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0))
    inputs[:, :, 3] = 1e-20
    inputs[1, 1, 3] = 3
    found = SequenceSums.of(inputs, Needs.SECOND_MOMENTS, moment_share=0.5).second_moment
    assert found is not None
    assert found.isfinite().all()
    assert found[3, :3].abs().max() < 1e-6
    torch.testing.assert_close(found[3, 3], torch.tensor(9.0))


@given(st.integers(1, 9), st.floats(0.01, 1))
def test_a_thinned_moment_does_not_depend_on_batches(tokens: int, share: float) -> None:
    inputs = torch.randn(4, tokens, 5, generator=torch.Generator().manual_seed(tokens))
    whole = SequenceSums.of(inputs, Needs.SECOND_MOMENTS, moment_share=share).second_moment
    parts = [SequenceSums.of(part, Needs.SECOND_MOMENTS, moment_share=share).second_moment for part in inputs.split(1)]
    assert whole is not None
    torch.testing.assert_close(whole, torch.stack([part for part in parts if part is not None]).sum(dim=0))
    torch.testing.assert_close(whole.diagonal(), inputs.square().sum(dim=(0, 1)))


@every_criterion
def test_a_weight_of_two_is_a_language_that_stands_twice(criterion: Criterion) -> None:
    first, second, third = languages()
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    twice = statistics_of([first, second, second, third], LanguageWeights())
    found = criterion.score(weight, weighted([first, second, third], 1, 2, 1))
    torch.testing.assert_close(found, criterion.score(weight, twice), rtol=1e-5, atol=0)
    plain = criterion.score(weight, statistics_of([first, second, third], LanguageWeights()))
    assert not torch.allclose(found, plain, rtol=1e-3)


@every_criterion
def test_a_weight_of_zero_is_a_language_that_is_not_there(criterion: Criterion) -> None:
    first, second, third = languages()
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    without = statistics_of([first, third], LanguageWeights())
    found = criterion.score(weight, weighted([first, second, third], 1, 0, 1))
    torch.testing.assert_close(found, criterion.score(weight, without), rtol=1e-5, atol=0)


@every_criterion
@pytest.mark.parametrize("weighting", [LanguageWeights(), LanguageWeights((1.0, 1.0, 1.0))])
def test_weights_of_one_change_no_bit(criterion: Criterion, weighting: LanguageWeights) -> None:
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    found, plain = (
        criterion.score(weight, statistics_of(languages(), each)) for each in (weighting, LanguageWeights())
    )
    assert torch.equal(found, plain)


@every_criterion
def test_only_relations_of_weights_matter(criterion: Criterion) -> None:
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    small, large = (criterion.score(weight, weighted(languages(), 1 * f, 2 * f, 3 * f)) for f in (0.01, 100.0))
    torch.testing.assert_close(small / small.sum(), large / large.sum(), rtol=1e-4, atol=0)


def test_second_moments_and_means_of_weighted_tokens() -> None:
    inputs, given = languages(), (0.5, 2.0, 0.0)
    statistics = weighted(inputs, *given)
    expected = sum(weight * part.T @ part for weight, part in zip(given, inputs, strict=True))
    assert statistics.second_moment is not None
    torch.testing.assert_close(statistics.second_moment, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(statistics.second_moment.diagonal().sqrt(), pooled_norm(statistics))
    rows = torch.cat([inputs[0], *[inputs[1]] * 4])
    mean, variance = mean_and_variance(statistics)
    torch.testing.assert_close(mean, rows.mean(dim=0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(variance, rows.var(dim=0, correction=0), rtol=1e-4, atol=1e-4)


def test_balanced_languages_have_second_moments_of_unit_mean_trace() -> None:
    inputs = languages()
    weights = statistics_of(inputs, BALANCED).weights
    statistics = statistics_of(inputs, BALANCED, weights)
    moments = [part.T @ part for part in inputs]
    expected = sum(moment / moment.diagonal().mean() for moment in moments)
    assert statistics.second_moment is not None
    torch.testing.assert_close(statistics.second_moment, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pooled_norm(statistics), expected.diagonal().sqrt(), rtol=1e-5, atol=0)
    assert float(pooled(statistics, statistics.sum_squares).sum()) == pytest.approx(3 * 8)


def test_given_weights_come_on_top_of_balance() -> None:
    inputs = languages()
    both = statistics_of(inputs, LanguageWeights((1.0, 3.0, 0.0), balanced=True))
    torch.testing.assert_close(both.weights, statistics_of(inputs, BALANCED).weights * torch.tensor([1.0, 3.0, 0.0]))


def test_balance_takes_loudness_and_amount_out_of_the_pooled_norm() -> None:
    first, second, third = languages()
    louder = [first, 10 * second, torch.cat([third] * 5)]
    found, expected = (pooled_norm(statistics_of(inputs, BALANCED)) for inputs in (louder, [first, second, third]))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("weighting", [BALANCED, LanguageWeights((1.0, 2.0, 3.0))])
def test_a_language_without_a_token_has_no_vote_and_spoils_nothing(weighting: LanguageWeights) -> None:
    first, _, third = languages()
    statistics = statistics_of([first, torch.zeros(0, 8), third], weighting)
    assert statistics.votes[1] == 0
    assert bool((statistics.votes[[0, 2]] > 0).all())
    for criterion in CRITERIA:
        assert bool(torch.isfinite(criterion.score(torch.ones(2, 8), statistics)).all())


def test_weights_stay_when_statistics_are_moved_or_added() -> None:
    statistics = statistics_of(languages(), BALANCED)
    assert statistics.to(torch.device("cpu")).weighting == BALANCED
    assert LanguageStatistics.total([statistics, statistics]).weighting == BALANCED
