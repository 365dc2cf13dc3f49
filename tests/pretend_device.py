"""A device that is not there: its tensors compute on the CPU, meet no tensor of another device, and count waits.

`pretend()` makes `DEVICE` usable in this thread. A tensor there says that it is, but its values are in the computer's
memory. What a real accelerator refuses is refused (a mix of devices, `.numpy()`), and what would wait
for it is written down with the line of `mwanda` that asks: values brought back (`.item()`, `bool()`, `.tolist()`,
`.cpu()`), shapes that depend on values (`nonzero`, `unique`, a Boolean index, `bincount`), factorisations that check
their outcome, and copies to the device that do not say `non_blocking`.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from mwanda.kernels import columnwise, fused, normalisation, vocabulary


DEVICE = torch.device("xla:0")
"""A kind that torch can name without a library for it, and that nothing here has an exception for."""

PACKAGE = str(Path(__file__).parent.parent / "mwanda")
ATEN = torch.ops.aten
COPIES = {ATEN.copy_.default, ATEN._to_copy.default}
WAITS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "unique_dim",
    "_unique",
    "_unique2",
    "unique_consecutive",
    "unique_dim_consecutive",
    "bincount",
    "equal",
    "linalg_cholesky",
    "cholesky",
    "linalg_inv",
    "linalg_solve",
    "_linalg_eigh",
    "_linalg_svd",
    "_linalg_check_errors",
}
"""Operations whose outcome, or whose shape, has to be known in Python."""
RESHAPES = {"set_", "resize_", "t_", "transpose_", "squeeze_", "unsqueeze_"}
"""Operations in place that change what the tensor is, and not only its values."""


class DeviceMixError(RuntimeError):
    """Tensors of two devices met."""


class Pretend(Tensor):
    """A tensor that says it is on `DEVICE`; `values` are its values, in the same memory."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> "Pretend":
        made: Pretend = Tensor._make_subclass(cls, values)
        made.values = values
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Say that it is there."""
        return DEVICE

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError("a tensor of the pretend device is used outside pretend()")


@dataclass
class Waits:
    """What would have waited for the device: how often, by line."""

    lines: Counter[str] = field(default_factory=Counter)

    def add(self, what: str) -> None:
        """Write down the line of the package that asks, or of the test."""
        frame = sys._getframe(1)
        while frame.f_back is not None and not frame.f_code.co_filename.startswith(PACKAGE):
            frame = frame.f_back
        own = frame.f_code.co_filename.startswith(PACKAGE)
        where = f"{frame.f_code.co_filename[len(PACKAGE) + 1 :]}:{frame.f_lineno}" if own else "elsewhere"
        self.lines[f"{where} {what}"] += 1

    @property
    def total(self) -> int:
        """All of them."""
        return self.lines.total()


class _Dispatch(TorchDispatchMode):
    def __init__(self, waits: Waits):
        super().__init__()
        self._waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        flat, form = tree_flatten((args, kwargs or {}))
        there = [each for each in flat if isinstance(each, Pretend)]
        here = [each for each in flat if isinstance(each, Tensor) and not isinstance(each, Pretend)]
        own, own_kwargs = tree_unflatten([each.values if isinstance(each, Pretend) else each for each in flat], form)
        asked = own_kwargs.get("device")
        if asked is not None and torch.device(asked).type == DEVICE.type:
            own_kwargs = own_kwargs | {"device": torch.device("cpu")}
        if func is ATEN._to_copy.default and there:
            asked = None  # torch means "where it is"; whoever means the CPU has been seen by `_Functions`
        name = func.overloadpacket.__name__
        if name == "histc" and there:  # which only accelerators know of whole numbers
            own = [own[0].float(), *own[1:]]
        # A single number may be anywhere, as with a real device; and autograd makes the zeros into which gradients are
        # put where torch takes their tensor to be.
        if there and func not in COPIES and func is not ATEN.index_put.default and any(each.dim() > 0 for each in here):
            if func is not ATEN.index.Tensor or not isinstance(args[0], Pretend):  # which takes places from the CPU
                raise DeviceMixError(f"{func} of tensors on two devices")
            self._waits.add("index")
        if there and self._waits_for(func, name, own, own_kwargs):
            self._waits.add(name)
        if func is ATEN.copy_.default and there and here and not own_kwargs.get("non_blocking", False):
            self._waits.add("copy_")
        found = func(*own, **own_kwargs)
        if name in RESHAPES and isinstance(args[0], Pretend):
            with torch._C._DisableTorchDispatch():
                func(args[0], *own[1:], **own_kwargs)
        if name.endswith("_") and not name.startswith("__"):
            return args[0]
        on_device = (there and asked is None) or (asked is not None and torch.device(asked).type == DEVICE.type)
        return tree_map_only(Tensor, _wrap, found) if on_device else found

    def _waits_for(self, func: Any, name: str, args: Any, kwargs: Any) -> bool:
        by_mask = name in ("index", "index_put_", "index_put") and any(
            each is not None and each.dtype == torch.bool for each in args[1]
        )
        by_repeats = name == "repeat_interleave" and kwargs.get("output_size") is None
        return name in WAITS or by_mask or by_repeats


def _wrap(tensor: Tensor) -> Tensor:
    return tensor if isinstance(tensor, Pretend) else Pretend(tensor)


class _Functions(TorchFunctionMode):
    """What torch does without its dispatcher, because it takes the values to be where they are."""

    def __init__(self, waits: Waits):
        super().__init__()
        self._waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        own = _OWN.get(func)
        return func(*args, **kwargs) if own is None else own(self._waits, func, *args, **kwargs)


def _to(waits: Waits, func: Any, tensor: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
    if args and isinstance(args[0], Tensor):
        args, kwargs = args[1:], {"device": args[0].device, "dtype": args[0].dtype, **kwargs}
    device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
    return _moved(waits, tensor, device or tensor.device, dtype or tensor.dtype, copy=copy, wait=not non_blocking)


def _moved(waits: Waits, tensor: Tensor, device: torch.device, dtype: torch.dtype, *, copy: bool, wait: bool) -> Tensor:
    if device.type == "meta" or tensor.is_meta:
        return torch.empty_like(tensor, device=device, dtype=dtype)
    moves = device.type != tensor.device.type
    if not (moves or copy or dtype != tensor.dtype):
        return tensor
    if not moves:
        return torch.ops.aten._to_copy.default(tensor, dtype=dtype)
    if wait:
        waits.add(f"copy to {'the CPU' if device.type == 'cpu' else 'the device'}")
    return tensor.values.to(dtype, copy=True) if isinstance(tensor, Pretend) else Pretend(tensor.to(dtype, copy=True))


def _type_as(waits: Waits, func: Any, tensor: Tensor, other: Tensor) -> Tensor:
    return _moved(waits, tensor, other.device, other.dtype, copy=False, wait=True)


def _attention(waits: Waits, func: Any, *args: Any, **kwargs: Any) -> Tensor:
    """Attend in one go, as torch makes a causal mask where it takes the queries to be."""
    flat, form = tree_flatten((args, kwargs))
    tensors = [each for each in flat if isinstance(each, Tensor)]
    if not any(isinstance(each, Pretend) for each in tensors) or any(each.requires_grad for each in tensors):
        found: Tensor = func(*args, **kwargs)
        return found
    if not all(isinstance(each, Pretend) for each in tensors):
        raise DeviceMixError(f"{func} of tensors on two devices")
    own, own_kwargs = tree_unflatten([each.values if isinstance(each, Pretend) else each for each in flat], form)
    return Pretend(func(*own, **own_kwargs))


def _cpu(waits: Waits, func: Any, tensor: Tensor, *_: Any, **__: Any) -> Tensor:
    return _moved(waits, tensor, torch.device("cpu"), tensor.dtype, copy=False, wait=True)


def _tolist(waits: Waits, func: Any, tensor: Tensor) -> Any:
    if isinstance(tensor, Pretend):
        waits.add("tolist")
        tensor = tensor.values
    return func(tensor)


def _numpy(waits: Waits, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
    if isinstance(tensor, Pretend):
        raise TypeError("can't convert a tensor of the pretend device to numpy")
    return func(tensor, *args, **kwargs)


def _tensor(waits: Waits, func: Any, data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
    made: Tensor = func(data, *args, **kwargs)
    if device is None:
        return made
    return _moved(waits, made, torch.device(device), made.dtype, copy=False, wait=True)


_OWN: Mapping[Any, Callable[..., Any]] = {
    Tensor.to: _to,
    Tensor.type_as: _type_as,
    Tensor.cpu: _cpu,
    Tensor.tolist: _tolist,
    Tensor.numpy: _numpy,
    Tensor.__array__: _numpy,
    torch.nn.functional.scaled_dot_product_attention: _attention,
    torch.tensor: _tensor,
    torch.as_tensor: _tensor,
}


@contextmanager
def pretend(*, kernels: bool = False) -> Iterator[Waits]:
    """Have `DEVICE` be there; give what would wait for it.

    Args:
        kernels: whether Triton may have a kernel for it, which it interprets, a row at a time.
    """
    waits = Waits()
    with ExitStack() as stack:
        for each in () if kernels else (fused, columnwise, vocabulary):
            stack.enter_context(patch.object(each, "agrees", lambda *_: False))
        if not kernels:
            stack.enter_context(patch.object(normalisation, "convention", lambda *_: None))
        stack.enter_context(_Dispatch(waits))
        stack.enter_context(_Functions(waits))
        yield waits


def moved(model: nn.Module) -> nn.Module:
    """Put a model on the pretend device, in place, and return it; parameters that share memory go on sharing it."""
    done: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and not parameter.is_meta:
                if id(parameter) not in done:
                    made = nn.Parameter(Pretend(parameter.data), requires_grad=parameter.requires_grad)
                    done[id(parameter)] = done[id(made)] = made
                module._parameters[name] = done[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = _wrap(buffer)
    return model


def values_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters of a model as tensors of the CPU, wherever they are."""
    return {
        name: parameter.values if isinstance(parameter, Pretend) else parameter.data
        for name, parameter in model.named_parameters()
    }
