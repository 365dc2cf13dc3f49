"""What all trials of what a device may or may not have end in, and where kernels start."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor


logger = logging.getLogger(__name__)


def passes(trial: Callable[[], str | None], unused: str, level: int = logging.WARNING) -> bool:
    """Return whether a trial finds nothing wrong; if it does, or raises anything, that is said.

    Args:
        trial: returns what is wrong, or None.
        unused: what is not used then, and where, as the beginning of a sentence.
        level: of the message.
    """
    try:
        reason = trial()
    except Exception as error:  # of a compiler or a library, which may raise anything
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
    if reason is not None:
        logger.log(level, "%s: %s", unused, reason)
    return reason is None


def starting_at(values: Tensor) -> AbstractContextManager[object]:
    """Have kernels start on the GPU that holds `values`: Triton takes the current one, and models may be on several."""
    return torch.cuda.device_of(values)
