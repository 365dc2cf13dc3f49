"""Norms in one pass, by Triton's interpreter: the kernel, which norms are given it, and whole evaluations with it."""

import copy
import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from pretend_device import DEVICE, Pretend, Waits, moved, pretend
from streamed_run import emptied
from tiny_models import tiny_model, tiny_tokenizer
from torch import Tensor, nn
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm

from mwanda.evaluation.head import Scorer
from mwanda.evaluation.perplexity import LanguagePerplexity, Perplexity
from mwanda.kernels import normalisation
from mwanda.kernels.normalisation import CONVENTIONS, Convention, fused_norms
from mwanda.models.weights import Streamed, Weights


NAME = "mwanda.kernels.norms"
SENTENCES = {"eng_Latn": ["The river is high.", "Bread!"], "ell_Grek": ["Το ποτάμι ανέβηκε.", "Ψωμί!"]}
FAMILIES: list[Callable[..., nn.Module]] = [LlamaRMSNorm, Gemma3RMSNorm, Olmo2RMSNorm]
HALVES = pytest.mark.parametrize("dtype", normalisation.HALVES, ids=str)


@pytest.fixture
def kernel(interpreted: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Give the kernel's module, of which nothing is known yet."""
    from triton.runtime import interpreter

    own = interpreter._convert_float

    def nearest(values: Any, kind: Any, wanted: Any, rounding: Any) -> Any:
        """Round as a GPU does, to the nearest, the even one of two: the interpreter cuts off what is too much."""
        if str(kind) != "fp32" or str(wanted) != "bf16":
            return own(values, kind, wanted, rounding)
        bits = np.ascontiguousarray(values).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)

    monkeypatch.setattr(interpreter, "_convert_float", nearest)
    normalisation.convention.cache_clear()
    yield importlib.import_module(NAME)
    normalisation.convention.cache_clear()


def plainly(inputs: Tensor, weight: Tensor, epsilon: float, convention: Convention) -> Tensor:
    """Return the formula, written out."""
    values = inputs.float()
    values = values * torch.rsqrt(values.square().mean(-1, keepdim=True) + epsilon)
    if convention.rounds_first:
        values = values.to(inputs.dtype).float()
    return (values * (weight.float() + int(convention.adds_one))).to(inputs.dtype)


def assert_close(found: Tensor, expected: Tensor) -> None:
    """Assert that results are two units in the last place apart at most, or a few in float32, and nearly all equal."""
    assert found.dtype == expected.dtype
    limits = torch.finfo(expected.dtype)
    units = 4 if expected.dtype == torch.float32 else 2
    distance = (found.float() - expected.float()).abs()
    assert bool((distance <= units * limits.eps * expected.float().abs().clamp(min=limits.tiny)).all())
    assert expected.dtype == torch.float32 or float((distance > 0).float().mean()) <= 0.01


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", [1, 7, 64, 100])
@pytest.mark.parametrize("leading", [(), (5,), (2, 3), (2, 3, 4)], ids=str)
def test_the_kernel_gives_what_the_formula_gives(
    kernel: ModuleType, leading: tuple[int, ...], size: int, dtype: torch.dtype, convention: Convention
) -> None:
    generator = torch.Generator().manual_seed(size)
    inputs = torch.randn(*leading, size, generator=generator).to(dtype)
    weight = torch.randn(size, generator=generator).to(dtype)
    for epsilon in (1e-6, 0.1):
        found = kernel.normalise(inputs, weight, epsilon, *convention)
        assert_close(found, plainly(inputs, weight, epsilon, convention))


def test_rows_may_lie_in_any_order_and_apart(kernel: ModuleType) -> None:
    """As heads do, which keep their layout, so that what follows is as fast as before."""
    generator, (convention, *_) = torch.Generator().manual_seed(0), CONVENTIONS
    weight = torch.randn(8, generator=generator)
    whole = torch.randn(2, 3, 4, 16, generator=generator)
    heads = whole[..., :8].contiguous()
    columns = heads.transpose(2, 3).contiguous().transpose(2, 3)
    for inputs in (heads, heads.transpose(1, 2), heads.transpose(0, 2), whole[..., 8:], heads[:, 1:2], columns):
        found = kernel.normalise(inputs, weight, 1e-6, *convention)
        torch.testing.assert_close(found, plainly(inputs, weight, 1e-6, convention))
    turned = heads.transpose(1, 2)
    assert kernel.normalise(turned, weight, 1e-6, *convention).stride() == turned.stride()
    assert kernel.normalise(heads[:0], weight, 1e-6, *convention).shape == (0, 3, 4, 8)


class ShiftedRMSNorm(LlamaRMSNorm):
    """Has a formula of its own."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        return super().forward(hidden_states) + 0.01


class OtherNorm(LlamaRMSNorm):
    """Called otherwise."""


class WithBiasRMSNorm(LlamaRMSNorm):
    """Holds another parameter."""

    def __init__(self, size: int):
        super().__init__(size)
        self.bias = nn.Parameter(torch.ones(size))


class WithStateRMSNorm(LlamaRMSNorm):
    """Depends on what no trial knows of."""

    def __init__(self, size: int):
        super().__init__(size)
        self._factor = 2.0

    def forward(self, hidden_states: Tensor) -> Tensor:
        return super().forward(hidden_states) * self._factor


def norm_of(made: Callable[..., nn.Module], dtype: torch.dtype = torch.bfloat16, size: int = 16) -> nn.Module:
    """Return a norm with a random weight."""
    norm = made(size)
    for parameter in norm.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    return norm.to(dtype)


@torch.no_grad()
def compared(norm: nn.Module, kernel: ModuleType, dtype: torch.dtype = torch.bfloat16) -> tuple[int, Waits]:
    """Assert that a norm gives there, fused, what it gives here; return how often the kernel was used, and waits."""
    inputs = torch.randn(5, 3, 16, generator=torch.Generator().manual_seed(2)).to(dtype)
    expected, calls, own = norm(inputs), [], kernel.normalise

    def counted(*args: Any) -> Tensor:
        calls.append(args)
        return own(*args)

    with pretend(kernels=True) as waits, patch.object(kernel, "normalise", counted):
        there = moved(copy.deepcopy(norm))
        with fused_norms(there):
            for _ in range(3):
                found = there(Pretend(inputs))
    assert isinstance(found, Pretend)
    assert_close(found.values, expected)
    return len([each for each in calls if each[0].shape == inputs.shape]), waits


@HALVES
@pytest.mark.parametrize(("made", "convention"), list(zip(FAMILIES, CONVENTIONS, strict=True)))
def test_a_norm_is_fused_by_its_own_convention_after_one_wait(
    kernel: ModuleType, made: Callable[..., nn.Module], convention: Convention, dtype: torch.dtype
) -> None:
    uses, waits = compared(norm_of(made, dtype), kernel, dtype)
    assert uses == 3
    assert waits.total == 1, waits.lines
    settings = normalisation._settings(norm_of(made, dtype))
    assert settings is not None
    kind = normalisation.Kind(type(norm_of(made)), settings, dtype, 16, DEVICE)
    hits = normalisation.convention.cache_info().hits
    assert normalisation.convention(kind) == convention
    assert normalisation.convention.cache_info().hits == hits + 1


@HALVES
@pytest.mark.parametrize("made", FAMILIES)
def test_so_are_those_of_larger_models(kernel: ModuleType, made: Callable[..., nn.Module], dtype: torch.dtype) -> None:
    """Of so many results some are rounded to the other side."""
    for size in (640, 2048):
        settings = normalisation._settings(norm_of(made, size=size))
        assert settings is not None
        kind = normalisation.Kind(type(norm_of(made)), settings, dtype, size, torch.device("cpu"))
        with torch.no_grad():
            assert normalisation.convention(kind) == CONVENTIONS[FAMILIES.index(made)]


@pytest.mark.parametrize("made", [ShiftedRMSNorm, OtherNorm, WithBiasRMSNorm, WithStateRMSNorm])
def test_a_norm_of_another_kind_is_left_alone(kernel: ModuleType, made: Callable[..., nn.Module]) -> None:
    uses, _ = compared(norm_of(made), kernel)
    assert uses == 0


def test_single_precision_is_left_alone(kernel: ModuleType) -> None:
    assert compared(norm_of(LlamaRMSNorm, torch.float32), kernel, torch.float32)[0] == 0


def test_what_is_not_known_of_a_call_is_left_to_the_norm_itself(kernel: ModuleType) -> None:
    """Gradients, keywords, another dtype."""
    inputs = torch.randn(2, 16)
    with pretend(kernels=True), patch.object(kernel, "normalise", lambda *_: pytest.fail("it was used")):
        norm = moved(norm_of(LlamaRMSNorm))
        with fused_norms(norm):
            assert norm(Pretend(inputs.bfloat16())).requires_grad
            with torch.no_grad():
                norm(hidden_states=Pretend(inputs.bfloat16()))
                norm(Pretend(inputs))


@pytest.mark.parametrize("wrong", [lambda *_: 1 / 0, lambda inputs, *_: inputs])
def test_a_kernel_that_errs_is_not_used(
    kernel: ModuleType, wrong: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kernel, "normalise", wrong)
    with caplog.at_level(logging.INFO):
        assert compared(norm_of(LlamaRMSNorm), kernel)[0] == 0
    assert "LlamaRMSNorm of 16 in torch.bfloat16 on xla:0 is not done in one pass" in caplog.text


def test_without_triton_norms_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    normalisation.convention.cache_clear()
    monkeypatch.setitem(sys.modules, NAME, None)
    monkeypatch.delattr("mwanda.kernels.norms", raising=False)
    inputs = torch.randn(2, 16).bfloat16()
    norm = norm_of(LlamaRMSNorm)
    with torch.no_grad(), pretend(kernels=True):
        expected, there = norm(inputs), moved(copy.deepcopy(norm))
        with fused_norms(there):
            assert there(Pretend(inputs)).values.equal(expected)
    normalisation.convention.cache_clear()


def test_forwards_are_given_back_also_after_an_exception() -> None:
    with pretend(kernels=True):
        model = moved(tiny_model("gemma3_text", dtype=torch.bfloat16))
        norms = [each for each in model.modules() if type(each).__name__.endswith("RMSNorm")]
        hooked = norms[0]
        hooked.__dict__["forward"] = own = hooked.forward
        with pytest.raises(KeyError), fused_norms(model):
            assert all("forward" in vars(each) for each in norms)
            assert vars(hooked)["forward"] is own
            with fused_norms(model):
                pass
            assert all("forward" in vars(each) for each in norms)
            raise KeyError
        assert [each for each in norms if "forward" in vars(each)] == [hooked]


def test_on_the_cpu_no_forward_is_changed() -> None:
    model = tiny_model("llama", dtype=torch.bfloat16)
    with fused_norms(model):
        assert not any("forward" in vars(each) for each in model.modules())


def measured(model: nn.Module, weights: Weights | None = None) -> dict[str, LanguagePerplexity]:
    """Return the perplexity of a model in two languages."""
    settings, tokenizer = Perplexity(window=16, stride=8, batch_tokens=64), tiny_tokenizer()
    texts = settings.texts(tokenizer, SENTENCES)
    return settings.measure(model, tokenizer, texts, weights=weights)  # type: ignore[arg-type]


@HALVES
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "olmo2"])
def test_perplexity_is_that_of_the_cpu(kernel: ModuleType, family: str, dtype: torch.dtype) -> None:
    """The norms of a model's own head are its own; all others are done by the kernel."""
    model, uses, own = tiny_model(family, dtype=dtype), [], kernel.normalise
    expected = measured(model)

    def counted(*args: Any) -> Tensor:
        uses.append(args)
        return own(*args)

    with pretend(kernels=True) as waits, patch.object(kernel, "normalise", counted):
        there = moved(copy.deepcopy(model))
        assert Scorer(there).fast
        uses.clear()
        before = waits.total
        found = measured(there)
        first, number = waits.total - before, len(uses)
        assert measured(there) == found
        assert waits.total - before == 2 * first  # all is tried once a process
    norms = sum(type(each).__name__.endswith("RMSNorm") for each in model.modules())
    assert number >= 2 * norms
    assert number % norms == 0
    assert not any("forward" in vars(each) for each in there.modules())
    for code, each in expected.items():
        assert found[code].perplexity == pytest.approx(each.perplexity, rel=2e-3)


def test_blocks_may_stay_on_disk(kernel: ModuleType, tmp_path: Path) -> None:
    """Their weights are nowhere when the evaluation begins, and come and go."""
    model, own, seen = tiny_model("llama", dtype=torch.bfloat16), kernel.normalise, []
    expected = measured(model)
    there, stored = emptied(model)

    def counted(*args: Any) -> Tensor:
        seen.append(args)
        return own(*args)

    with pretend(kernels=True), patch.object(kernel, "normalise", counted):
        found = measured(moved(there), Streamed(stored, tmp_path, DEVICE))
    assert len(seen) > 2 * 5  # of two blocks and the last one, in several batches
    for code, each in expected.items():
        assert found[code].perplexity == pytest.approx(each.perplexity, rel=2e-3)


def test_the_models_own_head_is_asked_with_its_own_norms(kernel: ModuleType) -> None:
    model, asked = tiny_model("llama", dtype=torch.bfloat16), []
    with pretend(kernels=True):
        moved(model)
        model.register_forward_pre_hook(lambda *_: asked.append("forward" in vars(model.model.norm)))
        model.model.register_forward_pre_hook(lambda *_: asked.append("forward" in vars(model.model.norm)))
        assert Scorer(model).fast
    assert asked == [False, False, True]
