"""The decoder blocks of a model and the weight matrices in them, for every family through one small adapter."""

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mwanda.errors import ModelError


@dataclass(frozen=True)
class Matrix:
    """One prunable weight matrix."""

    name: str
    module: nn.Module
    block: int

    @property
    def weight(self) -> Float[Tensor, "out in"]:
        """The weight as out × in, whatever the module's layout: a view, so that writing to it writes the model."""
        weight = self.module.weight
        assert isinstance(weight, nn.Parameter)
        return weight.data.T if isinstance(self.module, Conv1D) else weight.data

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        rows, columns = self.weight.shape
        return rows, columns


@dataclass(frozen=True)
class Block:
    """One decoder block with its prunable matrices in the order in which they are defined."""

    index: int
    name: str
    module: nn.Module
    matrices: tuple[Matrix, ...]

    @property
    def size(self) -> int:
        """The number of prunable weights."""
        return sum(matrix.weight.numel() for matrix in self.matrices)


@dataclass(frozen=True)
class Family:
    """Where a family of models keeps its decoder blocks.

    Args:
        name: what `mode=inspect` shows.
        model_types: the values of `config.model_type` that belong to it.
        block_paths: dotted paths of the block list within the model; the first that exists counts.
    """

    name: str
    model_types: tuple[str, ...]
    block_paths: tuple[str, ...]

    def block_list(self, model: nn.Module) -> tuple[str, nn.ModuleList]:
        """Return the path and the list of decoder blocks."""
        for path in self.block_paths:
            found = _submodule(model, path)
            if isinstance(found, nn.ModuleList):
                return path, found
        raise ModelError(
            f"family '{self.name}' expects decoder blocks at {' or '.join(self.block_paths)}, "
            f"and {type(model).__name__} has none there; add a family as CONTRIBUTING.md describes"
        )


@cache
def families() -> dict[str, Family]:
    """Return the family of each known `model_type`, from the files of `mwanda/models/families/`."""
    package = importlib.import_module("mwanda.models.families")
    known: dict[str, Family] = {}
    for module in pkgutil.iter_modules(package.__path__):
        family: Family = importlib.import_module(f"{package.__name__}.{module.name}").FAMILY
        known.update(dict.fromkeys(family.model_types, family))
    return known


def family_of(model: nn.Module) -> Family:
    """Return the family of `model`, or the generic one that finds the block list by itself."""
    model_type = str(getattr(getattr(model, "config", None), "model_type", ""))
    known = families().get(model_type)
    return known or Family("generic", (model_type,), (find_block_list(model),))


def find_block_list(model: nn.Module) -> str:
    """Return the path of the one list of alike modules that holds most weights of linear layers.

    Raises:
        ModelError: no list qualifies.
    """
    sizes = {
        path: sum(linear.get_parameter("weight").numel() for block in module for _, linear in linears(block))
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len({type(block) for block in module}) == 1
    }
    # A list inside another list (experts inside a block) is smaller than the list that holds it.
    path = max(sizes, key=lambda candidate: sizes[candidate], default="")
    if not path or sizes[path] == 0:
        raise ModelError(
            f"no list of decoder blocks with linear layers was found in {type(model).__name__}; "
            "add a family as CONTRIBUTING.md describes"
        )
    return path


def linears(block: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the linear layers of a block (`nn.Linear`, and GPT-2's transposed `Conv1D`) with their names in it."""
    for name, module in block.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            yield name, module


def blocks_of(model: nn.Module) -> list[Block]:
    """Return the decoder blocks of `model` with their prunable matrices.

    Embeddings and the LM head lie outside the blocks and are never among them.

    Raises:
        ModelError: no blocks are found, or a matrix shares its weight with another part of the model.
    """
    path, modules = family_of(model).block_list(model)
    blocks = [
        Block(
            index=index,
            name=f"{path}.{index}",
            module=module,
            matrices=tuple(Matrix(f"{path}.{index}.{name}", linear, index) for name, linear in linears(module)),
        )
        for index, module in enumerate(modules)
    ]
    _check_unshared(model, blocks)
    _check_two_dimensional(modules, path)
    return blocks


def _check_two_dimensional(modules: nn.ModuleList, path: str) -> None:
    for name, parameter in modules.named_parameters():
        if parameter.dim() == 3:
            raise ModelError(
                f"{path}.{name} holds several matrices in one {tuple(parameter.shape)} parameter (a mixture of "
                "experts); such models are not supported, as they would be pruned in part only"
            )


def _check_unshared(model: nn.Module, blocks: list[Block]) -> None:
    planned = {id(matrix.module.weight): matrix.name for block in blocks for matrix in block.matrices}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owner = planned.get(id(parameter))
        if owner is not None and name != f"{owner}.weight":
            raise ModelError(f"{owner}.weight is also {name}; a shared matrix cannot be pruned for one place only")


def _submodule(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None
