"""What is global to a thread, or to the process, and that a forward pass may change for the time that it runs."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


DEVICES = ("cpu", "cuda")
WARNINGS = ("filters", "showwarning", "_showwarnmsg_impl")
"""What `warnings.catch_warnings` puts back; the last one is how it records."""


@dataclass(frozen=True)
class ThreadState:
    """Gradient mode, autocast, the dtype of new tensors, random numbers and warnings, as they were at one time.

    Args:
        gradients: whether they are kept.
        autocast: for each kind of device whether products are made in another dtype, and in which.
        autocast_cache: whether weights in that dtype are kept.
        dtype: of new tensors.
        random: state of the generator of the CPU.
        device_random: of those of the GPUs that are in use.
        warnings: which are shown, and how.
    """

    gradients: bool
    autocast: Mapping[str, tuple[bool, torch.dtype]]
    autocast_cache: bool
    dtype: torch.dtype
    random: Tensor
    device_random: list[Tensor]
    warnings: Mapping[str, Any]

    @classmethod
    def now(cls) -> "ThreadState":
        """Return the state of the thread that asks."""
        return cls(
            torch.is_grad_enabled(),
            {kind: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in DEVICES},
            torch.is_autocast_cache_enabled(),
            torch.get_default_dtype(),
            torch.get_rng_state(),
            torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
            {name: getattr(warnings, name) for name in WARNINGS if hasattr(warnings, name)},
        )

    def restore(self) -> None:
        """Make it the state of the thread that asks."""
        torch.set_grad_enabled(self.gradients)
        for kind, (enabled, dtype) in self.autocast.items():
            torch.set_autocast_enabled(kind, enabled)
            torch.set_autocast_dtype(kind, dtype)
        torch.set_autocast_cache_enabled(self.autocast_cache)
        torch.clear_autocast_cache()  # weights may have been pruned since they were cast
        torch.set_default_dtype(self.dtype)
        torch.set_rng_state(self.random)
        for index, state in enumerate(self.device_random):
            torch.cuda.set_rng_state(state, index)
        if self.warnings["filters"] is not warnings.filters:
            for name, value in self.warnings.items():
                setattr(warnings, name, value)
            with warnings.catch_warnings():
                pass  # on its way out it has Python forget which warnings it has let pass


@contextmanager
def kept() -> Iterator[ThreadState]:
    """Give the thread's state, and put it back at the end, whatever has changed it."""
    before = ThreadState.now()
    try:
        yield before
    finally:
        before.restore()
