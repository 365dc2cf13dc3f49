"""Overlap and rank correlation against the plain definitions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from mwanda.comparison.masks import by_chance
from mwanda.inside import overlap
from mwanda.inside.overlap import rank_correlation, shared_and_either


def test_overlap_by_hand() -> None:
    masks = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    shared, either = shared_and_either(masks)
    assert shared.tolist() == [[2, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert either.tolist() == [[2, 3, 2], [3, 2, 2], [2, 2, 0]]


@given(st.integers(2, 5), st.integers(1, 60), st.integers(0, 1000))
@settings(deadline=None, derandomize=True, max_examples=50)
def test_overlap_against_sets(languages: int, weights: int, seed: int) -> None:
    masks = torch.rand(languages, weights, generator=torch.Generator().manual_seed(seed)) < 0.5
    shared, either = shared_and_either(masks)
    kept = [set(torch.nonzero(mask).flatten().tolist()) for mask in masks]
    for one in range(languages):
        for two in range(languages):
            assert shared[one, two] == len(kept[one] & kept[two])
            assert either[one, two] == len(kept[one] | kept[two])


def test_overlap_does_not_depend_on_how_much_is_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = torch.rand(3, 100, generator=torch.Generator().manual_seed(0)) < 0.5
    whole = shared_and_either(masks)
    monkeypatch.setattr(overlap, "AT_ONCE", 7)
    assert all(torch.equal(one, two) for one, two in zip(whole, shared_and_either(masks), strict=True))


@given(st.integers(2, 5), st.integers(3, 30), st.integers(0, 1000))
@settings(deadline=None, derandomize=True, max_examples=50)
def test_rank_correlation_is_spearmans(languages: int, features: int, seed: int) -> None:
    # Few different values, so that there are ties.
    profiles = torch.randint(6, (languages, features), generator=torch.Generator().manual_seed(seed)).float()
    profiles[:, 0] = torch.arange(languages) - 10.0  # no profile is constant
    found = rank_correlation(profiles)
    for one in range(languages):
        for two in range(languages):
            expected = spearmanr(profiles[one].numpy(), profiles[two].numpy()).statistic
            assert float(found[one, two]) == pytest.approx(expected, abs=1e-9)


def test_a_language_without_tokens_has_no_rank_correlation() -> None:
    found = rank_correlation(torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]))
    assert found.isnan().tolist() == [[True, True], [True, False]]


def test_overlap_by_chance() -> None:
    assert by_chance(0.5, 0.5) == pytest.approx(1 / 3)
    assert by_chance(1.0, 0.3) == pytest.approx(0.3)
    generator = torch.Generator().manual_seed(0)
    one, two = (torch.rand(100_000, generator=generator) < share for share in (0.4, 0.7))
    shared, either = shared_and_either(torch.stack([one, two]))
    assert float(shared[0, 1] / either[0, 1]) == pytest.approx(by_chance(0.4, 0.7), abs=0.01)
