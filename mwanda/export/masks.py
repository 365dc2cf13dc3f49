"""The masks alone, one bit a weight."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Bool
from torch import Tensor

from mwanda.export.base import MASKS, SHAPES
from mwanda.export.bits import pack, unpack
from mwanda.models import LoadedModel, blocks_of
from mwanda.models.weights import visit
from mwanda.system.files import write_tensors


@dataclass(frozen=True)
class Masks:
    """Saves, for each pruned matrix, which weights are kept, as packed bits in `masks.safetensors`."""

    name: ClassVar[str] = MASKS

    def write(self, loaded: LoadedModel, results: dict[str, Any], folder: Path) -> Path:
        """Write `masks.safetensors` and return it."""
        packed, shapes = {}, {}
        for block in visit(loaded.weights, blocks_of(loaded.model)):
            for matrix in block.matrices:
                packed[matrix.name] = pack(matrix.weight != 0).cpu()
                shapes[matrix.name] = f"{matrix.shape[0]}x{matrix.shape[1]}"
        target = folder / self.name
        # One entry: safetensors writes several in no fixed order, and the same masks shall give the same file.
        metadata = {SHAPES: json.dumps(shapes)}
        write_tensors(target, packed, metadata)
        return target


def load(path: Path) -> dict[str, Bool[Tensor, "out in"]]:
    """Return the masks of a file by matrix name, as out × in."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        shapes = json.loads(file.metadata()[SHAPES])
        return {name: unpack(file.get_tensor(name), int(shapes[name].split("x")[1])) for name in file.keys()}  # noqa: SIM118
