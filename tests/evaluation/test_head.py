"""Losses by chunks of the vocabulary, and the fall back to the model's own head where they would be wrong."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import SIZES, VOCABULARY, tiny_model
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from mwanda.evaluation.head import Scorer, losses
from mwanda.kernels.vocabulary import VOCABULARY_CHUNK


POSITIONS, HIDDEN, WORDS = 23, 16, 101
CHUNKS = (1, 7, 100, 101, 4096)
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "bloom": {},
    "opt": {},
    "xglm": {},
    "gpt_neox": {},
    "gpt2": {},
    "gemma2": {"final_logit_softcapping": 1.5},
    "gemma3_text": {},
    "cohere": {"logit_scale": 0.25},
    "phi": {},
    "granite": {"logits_scaling": 4.0},
}
"""Families with the values under which their logits are far from plain ones; the head of phi has a bias."""


class TensorSizes(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and note the size of what it returns."""
        found = func(*args, **(kwargs or {}))
        for each in found if isinstance(found, tuple | list) else (found,):
            if isinstance(each, Tensor):
                self.largest = max(self.largest, each.numel())
        return found


class TanhHead(nn.Linear):
    """A head that squeezes its logits, which no value of the configuration tells."""

    def forward(self, hidden: Tensor) -> Tensor:
        return 3 * torch.tanh(super().forward(hidden))


def head_inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return hidden states, targets, weight and bias, such that logits are of size 4 or so."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(POSITIONS, HIDDEN, generator=generator)
    weight = torch.randn(WORDS, HIDDEN, generator=generator)
    bias = torch.randn(WORDS, generator=generator)
    targets = torch.randint(WORDS, (POSITIONS,), generator=generator)
    return hidden.to(dtype), targets, weight.to(dtype), bias.to(dtype)


def family_model(family: str, monkeypatch: pytest.MonkeyPatch, **more: Any) -> PreTrainedModel:
    """Return the tiny model of a family of `FAMILIES`."""
    monkeypatch.setitem(SIZES, "granite", SIZES["llama"])
    return tiny_model(family, **{**FAMILIES[family], **more})


def some_windows(vocabulary: int = VOCABULARY) -> tuple[Tensor, list[int], list[int]]:
    """Return three windows of different length, how many of their last tokens are scored, and the lengths."""
    tokens = torch.randint(3, vocabulary, (3, 20), generator=torch.Generator().manual_seed(3))
    return tokens, [19, 5, 1], [20, 13, 7]


@torch.no_grad()
def own_losses(model: nn.Module, tokens: Tensor, scored: list[int], lengths: list[int]) -> list[Tensor]:
    """Return the losses by the model's own logits, a window at a time and without padding."""
    found = []
    for row, count, length in zip(tokens, scored, lengths, strict=True):
        logits = model(input_ids=row[None, :length]).logits[0].float()
        found.append(cross_entropy(logits[:-1], row[1:length], reduction="none")[-count:])
    return found


def assert_scores(scorer: Scorer, model: nn.Module, tolerance: float = 1e-5) -> None:
    """Assert that the scorer gives what the model's own head gives."""
    tokens, scored, lengths = some_windows()
    for found, expected in zip(
        scorer.score(tokens, scored, lengths), own_losses(model, tokens, scored, lengths), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_losses_are_those_of_cross_entropy(chunk: int, with_bias: bool, scale: float, softcap: float | None) -> None:
    hidden, targets, weight, bias = head_inputs()
    logits = (hidden.double() @ weight.double().T + (bias.double() if with_bias else 0)) * scale
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    found = losses(hidden, targets, weight, bias if with_bias else None, scale, softcap, chunk)
    torch.testing.assert_close(found.double(), cross_entropy(logits, targets, reduction="none"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_losses_of_half_precision_inputs_are_float32(chunk: int) -> None:
    hidden, targets, weight, bias = head_inputs(torch.bfloat16)
    expected = cross_entropy(hidden.float() @ weight.float().T + bias.float(), targets, reduction="none")
    found = losses(hidden, targets, weight, bias, chunk=chunk)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.05)


def test_huge_logits_do_not_overflow() -> None:
    hidden, targets, weight, _ = head_inputs()
    expected = cross_entropy(1e4 * hidden @ weight.T, targets, reduction="none")
    torch.testing.assert_close(losses(1e4 * hidden, targets, weight, chunk=10), expected)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("softcap", [None, 200.0])
def test_losses_that_overflow_are_right_beside_those_that_do_not(with_bias: bool, softcap: float | None) -> None:
    """Exponentials above 88 are infinite in float32."""
    hidden, targets, weight, bias = head_inputs()
    hidden = hidden * torch.linspace(0.1, 60, POSITIONS)[:, None]
    logits = hidden.double() @ weight.double().T + (bias.double() if with_bias else 0)
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    expected = cross_entropy(logits, targets, reduction="none")
    assert 3 < int((expected > 100).sum()) < POSITIONS - 3
    found = losses(hidden, targets, weight, bias if with_bias else None, softcap=softcap, chunk=7)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


def test_a_model_without_numbers_has_no_loss() -> None:
    hidden, targets, weight, _ = head_inputs()
    hidden[3] = math.nan
    found = losses(hidden, targets, weight)
    assert found.isnan().tolist() == [place == 3 for place in range(POSITIONS)]


@pytest.mark.parametrize("chunk", [7, 64])
def test_no_more_than_a_chunk_of_logits_is_held(chunk: int) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(50, 4, generator=generator), torch.randn(300, 4, generator=generator)
    targets = torch.randint(300, (50,), generator=generator)
    with TensorSizes() as sizes:
        losses(hidden, targets, weight, chunk=chunk)
    partial_sums = math.ceil(300 / chunk) * 50
    assert sizes.largest <= max(chunk * 50, partial_sums, weight.numel()) < 300 * 50


@pytest.mark.parametrize("family", FAMILIES)
def test_the_fast_way_is_taken_and_right(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = family_model(family, monkeypatch)
    scorer = Scorer(model)
    assert scorer.fast
    assert_scores(scorer, model)


@pytest.mark.parametrize("family", ["llama", "bloom", "gemma2", "cohere"])
def test_the_fast_way_is_taken_in_half_precision(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = family_model(family, monkeypatch, dtype=torch.bfloat16)
    scorer = Scorer(model)
    assert scorer.fast
    assert_scores(scorer, model, tolerance=0.1)


def hook_the_head(model: PreTrainedModel) -> None:
    """Triple the logits by a hook."""
    model.get_output_embeddings().register_forward_hook(lambda module, inputs, logits: 3 * logits)


def subclass_the_head(model: PreTrainedModel) -> None:
    """Put in a head of another class with the same weight."""
    weight = model.get_output_embeddings().weight
    head = TanhHead(weight.shape[1], weight.shape[0], bias=False)
    head.weight = weight
    model.set_output_embeddings(head)


def hide_the_weight(model: PreTrainedModel) -> None:
    """Put in a head that has no weight of its own."""
    model.set_output_embeddings(nn.Sequential(model.get_output_embeddings(), nn.Softsign()))


def mislead_the_configuration(model: PreTrainedModel) -> None:
    """Name a scale that the model does not apply."""
    model.config.logit_scale = 0.25


@pytest.mark.parametrize(
    "change",
    [hook_the_head, subclass_the_head, hide_the_weight, mislead_the_configuration],
    ids=lambda each: each.__name__,
)
def test_an_unknown_head_falls_back_and_is_right(change: Callable[[PreTrainedModel], None]) -> None:
    model = tiny_model("llama")
    before = torch.cat(own_losses(model, *some_windows()))
    change(model)
    scorer = Scorer(model)
    assert not scorer.fast
    assert_scores(scorer, model)
    if change is not mislead_the_configuration:
        assert not torch.allclose(torch.cat(scorer.score(*some_windows())), before, atol=0.01)


@pytest.mark.parametrize("fast", [True, False])
def test_padding_on_the_right_reaches_no_loss(fast: bool) -> None:
    model = tiny_model("gpt2")
    scorer = Scorer(model)
    scorer.fast = fast
    tokens, scored, lengths = some_windows()
    padded = tokens.clone()
    for row, length in zip(padded, lengths, strict=True):
        row[length:] = 5
    assert not torch.equal(padded, tokens)
    for one, other in zip(scorer.score(tokens, scored, lengths), scorer.score(padded, scored, lengths), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_logits_of_all_positions_are_never_held() -> None:
    words = 3 * VOCABULARY_CHUNK
    model = tiny_model("llama", vocab_size=words)
    scorer = Scorer(model)
    assert scorer.fast
    tokens, scored, lengths = some_windows(words)
    with TensorSizes() as sizes:
        scorer.score(tokens, scored, lengths)
    head = model.get_output_embeddings().weight.numel()
    assert sizes.largest <= max(head, VOCABULARY_CHUNK * sum(scored)) < words * sum(scored)
    assert sizes.largest < words * tokens.numel()
