"""Models whose blocks stay on disk, and pruning them."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from interruption import Job, StopAt
from torch import Tensor, nn

from mwanda.models import blocks_of
from mwanda.models.weights import Streamed, Weights, visit
from mwanda.pruner import PruningReport


CPU = torch.device("cpu")


@dataclass
class Stored(Mapping[str, Tensor]):
    """The weights of a checkpoint, as read on access, with a note of what was read."""

    tensors: dict[str, Tensor]
    read: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Tensor:
        self.read.append(name)
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def emptied(dense: nn.Module) -> tuple[nn.Module, Stored]:
    """Return a copy of which the blocks have shapes only, and what was in them."""
    model, stored = copy.deepcopy(dense), {}
    for block in blocks_of(model):
        for name, parameter in block.module.named_parameters():
            stored[f"{block.name}.{name}"] = parameter.data.clone()
        block.module.to("meta") if not list(block.module.buffers()) else _empty(block.module)
    return model, Stored(stored)


def _empty(module: nn.Module) -> None:
    for owner in module.modules():
        for name, parameter in list(owner.named_parameters(recurse=False)):
            setattr(owner, name, nn.Parameter(parameter.to("meta"), requires_grad=False))


def in_memory(model: nn.Module) -> set[int]:
    """Return the blocks of which any weight is there."""
    return {
        block.index
        for block in blocks_of(model)
        if any(not parameter.is_meta for parameter in block.module.parameters())
    }


def all_weights(model: nn.Module, weights: Weights) -> dict[str, Tensor]:
    """Return every weight of the model, those of blocks from where they are."""
    found = {name: value for name, value in model.state_dict().items() if not value.is_meta}
    for block in visit(weights, blocks_of(model)):
        found |= {f"{block.name}.{name}": value.clone() for name, value in block.module.state_dict().items()}
    return {name: found[name] for name in model.state_dict()}


def run_streamed(
    job: Job, folder: Path, checkpoint: Path | None = None, progress: StopAt | None = None
) -> tuple[dict[str, Tensor], PruningReport]:
    """Return what the job gives when its blocks stay on disk."""
    model, stored = emptied(job.dense)
    weights = Streamed(stored, folder, CPU)
    _, report = job.run(checkpoint, progress, model, weights)
    assert in_memory(model) == set()
    return all_weights(model, weights), report
