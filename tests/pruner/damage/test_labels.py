"""Tokens drawn by chunks of the vocabulary against the distribution function of the whole."""

import pytest
import torch
from tracked_memory import Tracked

from mwanda.models.head import OutputHead
from mwanda.pruner.damage.labels import PER_LOGIT, draw_tokens, draws_of


def head_of(words: int = 101, scale: float = 1.0, softcap: float | None = None) -> OutputHead:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(words, 8, generator=generator, dtype=torch.float64)
    return OutputHead(weight, torch.randn(words, generator=generator, dtype=torch.float64), scale, softcap)


def hidden_of(positions: int) -> torch.Tensor:
    return torch.randn(positions, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def probabilities(head: OutputHead, hidden: torch.Tensor) -> torch.Tensor:
    assert head.bias is not None
    logits = (hidden @ head.weight.T + head.bias) * head.scale
    return (logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)).softmax(dim=1)


@pytest.mark.parametrize("chunk", [1, 7, 100, 101, 4096])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.3, 2.0)])
def test_tokens_invert_the_distribution_function(chunk: int, scale: float, softcap: float | None) -> None:
    head, hidden = head_of(scale=scale, softcap=softcap), hidden_of(40)
    uniforms = torch.rand(3, 40, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    up_to = probabilities(head, hidden).cumsum(dim=1)
    found = draw_tokens(hidden, head, uniforms, chunk)
    assert found.shape == (3, 40)
    for draw, tokens in zip(uniforms, found, strict=True):
        assert torch.equal(tokens, torch.searchsorted(up_to, draw[:, None], right=True)[:, 0])


def test_tokens_are_as_frequent_as_they_are_likely() -> None:
    head, hidden, draws = head_of(words=11), hidden_of(1), 20_000
    uniforms = torch.rand(draws, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    counts = torch.bincount(draw_tokens(hidden, head, uniforms, 4)[:, 0], minlength=11)
    expected = probabilities(head, hidden)[0] * draws
    assert float(((counts - expected).square() / expected).sum()) < 35  # the 0.9999 quantile of χ² with 10 degrees


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_the_ends_of_the_distribution_are_tokens(uniform: float) -> None:
    found = draw_tokens(hidden_of(5), head_of(), torch.full((1, 5), uniform, dtype=torch.float64), 7)
    assert bool(((found >= 0) & (found < 101)).all())


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_gradient_of_a_logit_is_that_of_autograd(scale: float, softcap: float | None) -> None:
    head, hidden = head_of(scale=scale, softcap=softcap), hidden_of(6).requires_grad_()
    tokens = torch.arange(6) * 9
    assert head.bias is not None
    logits = (hidden @ head.weight.T + head.bias) * scale
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    (expected,) = torch.autograd.grad(logits[torch.arange(6), tokens].sum(), hidden)
    torch.testing.assert_close(head.gradient(hidden.detach(), tokens), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("labels", "count"), [(1.0, 12), (0.25, 3), (0.01, 1)])
def test_positions_are_distinct_and_as_many_as_asked_for(labels: float, count: int) -> None:
    draws = draws_of(50, 12, labels, 2, seed=0)
    assert draws.positions.shape == (50, count)
    assert draws.uniforms.shape == (2, 2, 50, count)
    assert all(len(set(row)) == count for row in draws.positions.tolist())
    assert bool(((draws.positions >= 0) & (draws.positions < 12)).all())
    counts = torch.bincount(draws.positions.flatten(), minlength=12)
    assert int(counts.min()) > 0 or count == 1


def test_parts_are_those_of_the_whole_and_the_seed_decides() -> None:
    whole = draws_of(7, 12, 0.5, 2, seed=0)
    parts = whole.split(3)
    assert torch.equal(torch.cat([part.positions for part in parts]), whole.positions)
    assert torch.equal(torch.cat([part.uniforms for part in parts], dim=2), whole.uniforms)
    assert torch.equal(draws_of(7, 12, 0.5, 2, seed=0).uniforms, whole.uniforms)
    assert not torch.equal(draws_of(7, 12, 0.5, 2, seed=1).uniforms, whole.uniforms)


def test_drawing_holds_no_more_than_is_said() -> None:
    """In the worst case all tokens lie in one part of the vocabulary, whose logits are made again for all positions."""
    head = OutputHead(torch.randn(512, 4))
    hidden, uniforms = torch.randn(100, 4), torch.rand(1, 100, dtype=torch.float64)
    tracked = Tracked()
    with tracked:
        draw_tokens(hidden, head, uniforms, 512)
    assert 0.7 * PER_LOGIT * 100 * 512 <= tracked.peak <= 1.1 * PER_LOGIT * 100 * 512
