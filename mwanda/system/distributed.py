"""Data-parallel calibration and evaluation: each process takes a shard of the batches, all prune alike.

`torchrun --nproc-per-node N run.py …` starts them; without it there is one, and nothing here does anything.
"""

import atexit
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as distributed
from torch import Tensor


T = TypeVar("T")

PATIENCE = timedelta(hours=6)
"""How long processes wait for one that works alone, such as the first while it exports; when one dies, torchrun ends
all of them."""


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Args:
        rank: which of them this is.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def shard(self, items: Sequence[T]) -> list[T]:
        """Return this process's part of `items`: every `size`-th."""
        return list(items[self.rank :: self.size])

    def all_reduce(self, tensors: Iterable[Tensor]) -> None:
        """Sum each tensor over all processes, in place."""
        if self.size > 1:
            for tensor in tensors:
                distributed.all_reduce(tensor)

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            distributed.barrier()

    def broadcast(self, text: str) -> str:
        """Return the first process's `text`."""
        return self._said_by(0, text)

    def all_gather(self, text: str) -> list[str]:
        """Return the `text` of every process, by rank."""
        return [self._said_by(rank, text) for rank in range(self.size)]

    def _said_by(self, rank: int, text: str) -> str:
        if self.size == 1:
            return text
        data = torch.tensor(list(text.encode()), dtype=torch.uint8)
        length = torch.tensor([data.numel()])
        distributed.broadcast(length, src=rank)
        if self.rank != rank:
            data = torch.zeros(int(length), dtype=torch.uint8)
        distributed.broadcast(data, src=rank)
        return bytes(data.tolist()).decode()


def join() -> World:
    """Return the processes that `torchrun` started, connected: by NCCL on GPUs, by gloo on the CPU."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    if not distributed.is_initialized():
        from mwanda.system import device

        device.take(int(os.environ.get("LOCAL_RANK", "0")))
        distributed.init_process_group(backend=device.communication(), timeout=PATIENCE)
        atexit.register(leave)
    return World(distributed.get_rank(), size)


def leave() -> None:
    """Disconnect, if connected."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
