"""Where the weights of blocks are while they are not in use: in memory, or on disk for models that are larger."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from torch import Tensor, nn

from mwanda.models.block import Block
from mwanda.system.content import sha256_of
from mwanda.system.files import write_tensors
from mwanda.system.sealed import check_file


class Weights(Protocol):
    """Brings a block's weights into memory and takes them away."""

    def fetch(self, block: Block) -> None:
        """Bring the block's weights into memory, pruned when they have been kept."""
        ...

    def keep(self, block: Block) -> str | None:
        """Make what is in memory now the block's weights for good; return the digest of the file that holds them."""
        ...

    def release(self, block: Block) -> None:
        """Free the memory of the block's weights."""
        ...

    def resume(self, blocks: Sequence[Block], digests: Sequence[str | None]) -> None:
        """Say which blocks an earlier, interrupted run has kept, and what `keep` returned for each.

        Raises:
            DamagedFileError: one of them is no longer what it was.
        """
        ...


class Resident:
    """The whole model stays in memory."""

    def fetch(self, block: Block) -> None:
        """Do nothing."""

    def keep(self, block: Block) -> str | None:
        """Do nothing."""
        return None

    def release(self, block: Block) -> None:
        """Do nothing."""

    def resume(self, blocks: Sequence[Block], digests: Sequence[str | None]) -> None:
        """Do nothing."""


class Streamed:
    """One block at a time is read from disk; pruned blocks are written to a folder, one file each.

    Args:
        dense: the weights of the checkpoint by the names of the model's parameters, read on access.
        folder: for the pruned blocks; made when the first of them is written.
        device: where the weights are used.
    """

    def __init__(self, dense: Mapping[str, Tensor], folder: Path, device: torch.device):
        self._dense, self._folder, self._device = dense, folder, device
        self._kept: set[int] = set()
        self._free: dict[tuple[torch.Size, torch.dtype], list[Tensor]] = {}

    def fetch(self, block: Block) -> None:
        """Read the block's weights, pruned when they have been kept."""
        with self._reading(block) as read:
            for name, parameter in list(block.module.named_parameters()):
                if parameter.is_meta:
                    # A copy, one at a time: what is read may be the file itself, mapped into memory.
                    values = self._buffer(parameter).copy_(read(f"{block.name}.{name}"))
                    _assign(block.module, name, values)

    def keep(self, block: Block) -> str | None:
        """Write the block's weights under a temporary name and rename the file; return its digest."""
        tensors = {f"{block.name}.{name}": values.data for name, values in block.module.named_parameters()}
        write_tensors(self._path(block), tensors)
        self._kept.add(block.index)
        return sha256_of(self._path(block))

    def release(self, block: Block) -> None:
        """Leave shapes without values."""
        self._free = {}
        for name, parameter in list(block.module.named_parameters()):
            self._free.setdefault((parameter.shape, parameter.dtype), []).append(parameter.data)
            _assign(block.module, name, torch.empty_like(parameter, device="meta"))

    def _buffer(self, parameter: nn.Parameter) -> Tensor:
        """Return memory for a weight: that of the block released last, as to free and to ask again fragments it."""
        free = self._free.get((parameter.shape, parameter.dtype))
        return free.pop() if free else torch.empty_like(parameter, device=self._device)

    def resume(self, blocks: Sequence[Block], digests: Sequence[str | None]) -> None:
        """Take these blocks from the folder."""
        self._kept = set()
        for block, digest in zip(blocks, digests, strict=True):
            check_file(self._path(block), digest or "")
        self._kept = {block.index for block in blocks}

    def _path(self, block: Block) -> Path:
        return self._folder / f"block-{block.index:05d}.safetensors"

    @contextmanager
    def _reading(self, block: Block) -> Iterator[Callable[[str], Tensor]]:
        """Give a way to read the block's weights by name, pruned when they have been kept."""
        if block.index not in self._kept:
            yield self._dense.__getitem__
            return
        with safe_open(self._path(block), framework="pt") as file:
            yield file.get_tensor


def visit(weights: Weights, blocks: Iterable[Block]) -> Iterator[Block]:
    """Yield each block while its weights are in memory."""
    for block in blocks:
        weights.fetch(block)
        yield block
        weights.release(block)


def _assign(module: nn.Module, name: str, values: Tensor) -> None:
    owner, _, last = name.rpartition(".")
    setattr(module.get_submodule(owner), last, nn.Parameter(values, requires_grad=False))
