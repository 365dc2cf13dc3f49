"""Where the hidden states of batches are offloaded to while other batches run: on the device, in RAM or on disk."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


Activations = Literal["device", "ram", "disk"]
OFFLOADED = "activations-"
"""What the names of folders begin with that hold waiting hidden states."""


class ActivationOffloading(Protocol):
    """Empties tensors and fills them again; whoever holds one of them goes on holding the same tensor."""

    def offload(self, index: int, tensors: list[Tensor]) -> None:
        """Keep the values of batch `index` and free the memory of its tensors."""
        ...

    def fetch(self, index: int) -> None:
        """Give the values back to the tensors of batch `index`."""
        ...


class InMemory:
    """Keeps values in the computer's memory, for batches that run on an accelerator."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def offload(self, index: int, tensors: list[Tensor]) -> None:
        """Copy the values and free the tensors."""
        self._waiting[index] = [(tensor, tensor.to("cpu", copy=True)) for tensor in tensors]
        _empty(tensors)

    def fetch(self, index: int) -> None:
        """Copy the values back."""
        for tensor, values in self._waiting.pop(index):
            _fill(tensor, values.to(tensor.device))


class OnDisk:
    """Keeps values in a folder, one file a batch."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: dict[int, list[Tensor]] = {}

    def offload(self, index: int, tensors: list[Tensor]) -> None:
        """Write the values and free the tensors."""
        save_file({str(place): tensor.contiguous() for place, tensor in enumerate(tensors)}, self._path(index))
        self._waiting[index] = tensors
        _empty(tensors)

    def fetch(self, index: int) -> None:
        """Read the values back."""
        values = load_file(self._path(index))
        for place, tensor in enumerate(self._waiting.pop(index)):
            # A copy: what was read may still be the file itself, which the next pause overwrites.
            _fill(tensor, values[str(place)].to(tensor.device, copy=True))

    def _path(self, index: int) -> Path:
        return self._folder / f"{index:06d}.safetensors"


@contextmanager
def offloading_of(activations: Activations, folder: Path | None = None) -> Iterator[ActivationOffloading | None]:
    """Give the offloading of this name; what it keeps in `folder`, or among temporary files, is removed at the end."""
    if activations == "disk":
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=OFFLOADED, dir=folder) as place:
            yield OnDisk(Path(place))
    else:
        yield InMemory() if activations == "ram" else None


def _empty(tensors: list[Tensor]) -> None:
    for tensor in tensors:
        _fill(tensor, torch.empty(0, dtype=tensor.dtype, device=tensor.device))


def _fill(tensor: Tensor, values: Tensor) -> None:
    tensor.set_(values.untyped_storage(), 0, values.shape, values.stride())
