"""The masks alone, one bit a weight."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from mwanda.export.base import write_atomically
from mwanda.models import LoadedModel, blocks_of


@dataclass(frozen=True)
class Masks:
    """Saves, for each pruned matrix, which weights are kept, as packed bits in `masks.safetensors`."""

    name: ClassVar[str] = "masks.safetensors"

    def write(self, loaded: LoadedModel, results: dict[str, Any], folder: Path) -> Path:
        """Write `masks.safetensors` and return it."""
        from safetensors.torch import save_file

        matrices = [matrix for block in blocks_of(loaded.model) for matrix in block.matrices]
        packed = {matrix.name: pack(matrix.weight != 0) for matrix in matrices}
        shapes = {matrix.name: f"{matrix.shape[0]}x{matrix.shape[1]}" for matrix in matrices}
        target = folder / self.name
        write_atomically(target, lambda path: save_file(packed, path, metadata=shapes))
        return target


def pack(kept: Bool[Tensor, "out in"]) -> UInt8[Tensor, "out bytes"]:
    """Return eight weights a byte, first weight in the highest bit, rows padded with zeros."""
    return torch.from_numpy(np.packbits(kept.cpu().numpy(), axis=1)).contiguous()  # GPT-2's weights are transposed


def unpack(packed: UInt8[Tensor, "out bytes"], columns: int) -> Bool[Tensor, "out in"]:
    """Undo `pack`."""
    return torch.from_numpy(np.unpackbits(packed.numpy(), axis=1, count=columns).astype(bool))


def load(path: Path) -> dict[str, Bool[Tensor, "out in"]]:
    """Return the masks of a file by matrix name, as out × in."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        shapes = file.metadata()
        return {name: unpack(file.get_tensor(name), int(shapes[name].split("x")[1])) for name in file.keys()}  # noqa: SIM118
