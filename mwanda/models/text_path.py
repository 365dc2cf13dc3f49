"""Which modules of a model text passes through, found by passing a few tokens through it without its weights."""

import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mwanda.errors import ModelError
from mwanda.models.forward import forward


SEQUENCES, TOKENS = 2, 5
LONGEST_REASON = 200


@dataclass(frozen=True)
class Call:
    """One call of a module in a pass.

    Args:
        name: of the module within the model.
        vectors: how many the first of its inputs holds, one for each token where text passes as it is.
    """

    name: str
    vectors: int


@dataclass(frozen=True)
class TextPath:
    """The way of a few tokens through a model.

    Args:
        calls: of modules, in their order.
        tokens: how many passed.
    """

    calls: tuple[Call, ...]
    tokens: int

    @cached_property
    def times(self) -> Mapping[str, int]:
        """How often each module was called, by its name; those that were not are not in it."""
        return Counter(call.name for call in self.calls)

    def passes_below(self, name: str) -> bool:
        """Return whether a module, or any within it, was called."""
        return any(each == name or each.startswith(f"{name}.") for each in self.times)


_KNOWN: WeakKeyDictionary[nn.Module, TextPath | str] = WeakKeyDictionary()


def text_path(model: nn.Module) -> TextPath:
    """Return the way of calibration text through `model`.

    Linear layers and experts return zeros here and compute nothing, and every parameter is a single zero that is
    looked at as its whole shape. So neither weights are read (a model on the meta device has none) nor is time spent
    on them; what a forward pass decides from values, it decides from zeros.

    Raises:
        ModelError: its forward pass cannot be called with tokens alone, or not with such weights.
    """
    if model not in _KNOWN:
        try:
            _KNOWN[model] = _follow(model)
        except Exception as error:  # a model's own code, which may raise anything
            _KNOWN[model] = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_REASON]
    found = _KNOWN[model]
    if isinstance(found, str):
        raise ModelError(
            f"text cannot be followed through {type(model).__name__} ({found}); "
            "if it can be called with tokens alone, add a family as CONTRIBUTING.md describes"
        )
    return found


def _follow(model: nn.Module) -> TextPath:
    calls: list[Call] = []
    names = {module: name for name, module in model.named_modules()}

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        if module in names:
            first = args[0] if args and isinstance(args[0], Tensor) else None
            calls.append(Call(names[module], 0 if first is None or not first.dim() else first[..., 0].numel()))

    tokens = torch.arange(SEQUENCES * TOKENS).view(SEQUENCES, TOKENS) + 3  # the first are often padding and the like
    tokens = tokens.clamp(max=_vocabulary(model) - 1)
    training = [module for module in model.modules() if module.training]
    hook = nn.modules.module.register_module_forward_pre_hook(note)
    try:
        for module in training:
            module.training = False
        with torch.no_grad(), _without_products(model), _without_values(model):
            forward(model, tokens)
    finally:
        hook.remove()
        for module in training:
            module.training = True
    return TextPath(tuple(calls), tokens.numel())


def _vocabulary(model: Any) -> int:
    """Return how many tokens can be embedded; a model that does not say has enough."""
    embedding: Any = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    return len(embedding.weight) if hasattr(embedding, "weight") else sys.maxsize


@contextmanager
def _without_values(model: nn.Module) -> Iterator[None]:
    """Have zeros in place of all parameters, and of buffers that are not in the computer's memory."""
    places = [(module._parameters, key) for module in model.modules() for key in module._parameters]
    places += [(module._buffers, key) for module in model.modules() for key in module._buffers]  # type: ignore[misc]
    before = [(held, key, held[key]) for held, key in places]
    try:
        for held, key, value in before:
            if isinstance(value, nn.Parameter):
                # A small one is whole, as a forward pass may write to it.
                zeros = torch.zeros(value.shape if value.dim() < 2 else 1, dtype=value.dtype).expand(value.shape)
                held[key] = nn.Parameter(zeros, requires_grad=False)
            elif value is not None and value.device.type != "cpu":
                held[key] = torch.zeros(value.shape, dtype=value.dtype)  # type: ignore[assignment]
        yield
    finally:
        for held, key, value in before:
            held[key] = value


@contextmanager
def _without_products(model: nn.Module) -> Iterator[None]:
    """Have linear layers and experts return zeros of the right shape."""
    before = []
    for module in model.modules():
        instead = _instead_of(module)
        if instead is not None:
            before.append((module, module.__dict__.get("forward")))
            module.__dict__["forward"] = instead
    try:
        yield
    finally:
        for module, own in before:
            module.__dict__.pop("forward")
            if own is not None:
                module.__dict__["forward"] = own


def _instead_of(module: nn.Module) -> Callable[..., Tensor] | None:
    if hasattr(module, "has_gate") and hasattr(module, "is_transposed"):  # experts, as transformers marks them
        return lambda hidden, *_, **__: hidden
    plain = (nn.Linear.forward, Conv1D.forward)
    if isinstance(module, nn.Linear | Conv1D) and inspect.unwrap(type(module).forward) in plain:
        width = module.out_features if isinstance(module, nn.Linear) else module.nf
        return lambda values: values.new_zeros(*values.shape[:-1], width)
    return None
