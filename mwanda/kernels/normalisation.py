"""Norms by the root of the mean square in one pass while a model is evaluated, each kind after a trial.

Written out, as in transformers, such a norm is some nine kernels, which in a small model take longer than its products.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mwanda.kernels.trial import passes


HALVES = (torch.bfloat16, torch.float16)
"""In float32 a sum in another order is another number already, and what is exact is wanted more than what is fast."""

TRIED = 64
"""Rows of a trial."""

DIFFERING = 0.01
"""At most this share of the results may differ, where sums in another order are rounded to the other side."""


class Convention(NamedTuple):
    """What families do differently; no interface tells which.

    Args:
        rounds_first: to the dtype of the inputs before the weight is multiplied, and not after it alone.
        adds_one: to the weight.
    """

    rounds_first: bool
    adds_one: bool


CONVENTIONS = (Convention(True, False), Convention(False, True), Convention(False, False))
"""Those of Llama, of Gemma, and of OLMo 2."""


class Kind(NamedTuple):
    """All that a norm depends on but its weight.

    Args:
        norm: its class.
        settings: its attributes.
        dtype: of inputs and weight.
        size: of a row.
        device: where.
    """

    norm: type[nn.Module]
    settings: tuple[tuple[str, object], ...]
    dtype: torch.dtype
    size: int
    device: torch.device

    @property
    def epsilon(self) -> float:
        """What is added to the mean square."""
        return _epsilon(self.settings) or 0.0

    def with_weight(self, weight: Tensor) -> nn.Module:
        """Return such a norm; what needs more than is known here fails when it is called."""
        made = self.norm.__new__(self.norm)
        nn.Module.__init__(made)
        made.__dict__.update(self.settings)
        made.register_parameter("weight", nn.Parameter(weight, requires_grad=False))
        return made


@contextmanager
def fused_norms(model: nn.Module) -> Iterator[None]:
    """Have the norms of a model that are on an accelerator do their work in one pass, where a trial says so.

    Whether one is, and in what dtype, is asked at each call: weights may come and go meanwhile.
    """
    changed: list[nn.Module] = []
    try:
        if any(parameter.device.type not in ("cpu", "meta") for parameter in model.parameters()):
            for module in model.modules():
                settings = _settings(module)
                if settings is not None:
                    module.__dict__["forward"] = _fused(module, settings)
                    changed.append(module)
        yield
    finally:
        for module in changed:
            module.__dict__.pop("forward", None)


def _settings(module: nn.Module) -> tuple[tuple[str, object], ...] | None:
    """Return the attributes of a norm of which a weight is all that it holds besides; None of anything else."""
    held = [*module._parameters, *module._buffers, *module._modules]
    if not type(module).__name__.endswith("RMSNorm") or held != ["weight"] or getattr(module.weight, "ndim", 0) != 1:
        return None
    own = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    plain = all(value is None or isinstance(value, bool | int | float | str) for value in own.values())
    settings = tuple(sorted(own.items()))
    # A `forward` of its own (of hooks that move weights) is not plain.
    return settings if plain and _epsilon(settings) is not None else None


def _epsilon(settings: tuple[tuple[str, object], ...]) -> float | None:
    found = [value for name, value in settings if name in ("eps", "variance_epsilon")]
    return found[0] if found and isinstance(found[0], float) else None


def _fused(module: nn.Module, settings: tuple[tuple[str, object], ...]) -> Callable[..., Any]:
    own = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        weight = module.weight
        if len(args) == 1 and not kwargs and isinstance(weight, Tensor) and _takes(args[0], weight):
            kind = Kind(type(module), settings, weight.dtype, len(weight), weight.device)
            found = convention(kind)
            if found is not None:
                from mwanda.kernels import norms

                return norms.normalise(args[0], weight, kind.epsilon, *found)
        return own(*args, **kwargs)

    return forward


def _takes(inputs: object, weight: Tensor) -> bool:
    """Return whether there may be a kernel for such inputs; none has a gradient."""
    if not isinstance(inputs, Tensor) or inputs.device.type == "cpu" or torch.is_grad_enabled():
        return False
    alike = inputs.device == weight.device and inputs.dtype == weight.dtype
    return alike and inputs.dtype in HALVES and inputs.shape[-1:] == weight.shape


@cache
def convention(kind: Kind) -> Convention | None:
    """Return the convention by which the kernel of `norms` does what a kind of norm does, or None.

    That is: no result is further from the norm's own than one unit in the last place of that, and at least 99 % are
    equal. Where it is rounded twice these are two units: what is one before the weight may be two after it. The device
    is waited for once.
    """
    agreeing: list[Convention] = []

    def trial() -> str | None:
        from mwanda.kernels import norms

        values = torch.randn(TRIED + 1, kind.size, generator=torch.Generator().manual_seed(0))
        values[:TRIED] *= torch.logspace(-3, 2, TRIED)[:, None]  # for small rows it matters where ε is added
        values = values.to(kind.dtype).to(kind.device, non_blocking=True)
        inputs, weight = values[:TRIED], values[TRIED]
        own = kind.with_weight(weight)(inputs)
        if own.dtype != inputs.dtype or own.shape != inputs.shape:
            return "it returns another dtype or shape"
        own = own.float()
        limits = torch.finfo(kind.dtype)
        unit = limits.eps * own.abs().clamp(min=limits.tiny)  # at least one, and less than two
        found = []
        for each in CONVENTIONS:
            distance = (norms.normalise(inputs, weight, kind.epsilon, *each).float() - own).abs()
            found.append(
                (distance <= unit * (1 + each.rounds_first)).all() & ((distance > 0).float().mean() <= DIFFERING)
            )
        agreeing.extend(each for each, agrees in zip(CONVENTIONS, torch.stack(found).tolist(), strict=True) if agrees)
        return None if agreeing else "it follows no known convention"

    what = f"{kind.norm.__name__} of {kind.size} in {kind.dtype} on {kind.device} is not done in one pass"
    return agreeing[0] if passes(trial, what, logging.INFO) else None
