"""The transformer blocks of a model and the weight matrices in them, for every family through one small adapter."""

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from torch import nn

from mwanda.errors import ModelError
from mwanda.models.block import Block, Matrix
from mwanda.models.layers import EXPERT_PARAMETERS, check_layout, experts, linears, routers
from mwanda.models.layout import block_lists_on, check_way
from mwanda.models.text_path import TextPath, text_path


@dataclass(frozen=True)
class Family:
    """Where a family of models keeps its blocks.

    Args:
        name: what `mode=inspect` shows.
        model_types: the values of `config.model_type` that belong to it.
        block_paths: dotted paths of the block list within the model; the first that exists counts.
        further_paths: lists that a forward pass meets after that one, in its order, all of which are pruned too
            (the decoder of an encoder-decoder).
        keep: modules to leave alone, by their names within a block. The router of a mixture of experts need not be
            among them: it is left alone everywhere.
    """

    name: str
    model_types: tuple[str, ...]
    block_paths: tuple[str, ...]
    further_paths: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    def block_lists(self, model: nn.Module) -> list[tuple[str, nn.ModuleList]]:
        """Return path and list of blocks of each stack, in the order in which a forward pass meets them.

        Raises:
            ModelError: the model has no list there.
        """
        alternatives = [self.block_paths, *((path,) for path in self.further_paths)]
        return [self._first(model, paths) for paths in alternatives]

    def _first(self, model: nn.Module, paths: Sequence[str]) -> tuple[str, nn.ModuleList]:
        for path in paths:
            found = _submodule(model, path)
            if isinstance(found, nn.ModuleList):
                return path, found
        raise ModelError(
            f"family '{self.name}' expects blocks at {' or '.join(paths)}, "
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
    """Return the family of `model`, or the generic one, of the lists of blocks that text passes through.

    Raises:
        ModelError: text passes through no such list, or cannot be followed.
    """
    config = getattr(model, "config", None)
    model_type = str(getattr(config, "model_type", ""))
    known = families().get(model_type)
    if known is not None:
        return known
    paths = block_lists_on(text_path(model), model)
    if not paths:
        raise ModelError(
            f"no list of blocks with linear layers that text passes through was found in {type(model).__name__}; "
            "add a family as CONTRIBUTING.md describes"
        )
    return Family("generic", (model_type,), (paths[0],), tuple(paths[1:]))


def blocks_of(model: nn.Module) -> list[Block]:
    """Return the blocks of `model` with their prunable matrices, in the order in which a forward pass meets them.

    They are those that text passes through: a vision tower is not among them. No weight is read, so that the model
    may be on the meta device. Embeddings and the LM head lie outside the blocks and are never among them; neither are
    routers, which are small and decide which expert sees a token.

    Raises:
        ModelError: no blocks are found, text does not pass through each of them once and in one order, a matrix
            shares its weight with another part of the model, or a parameter holds several matrices in a layout that
            is not supported.
    """
    family = family_of(model)
    path = _path_through(model)
    blocks: list[Block] = []
    for stack, modules in family.block_lists(model):
        for index, module in enumerate(modules):
            name = f"{stack}.{index}"
            if path is not None and name not in path.times:
                continue
            check_layout(module, name)
            matrices = _matrices(name, module, len(blocks), routers(module).union(family.keep), path)
            blocks.append(Block(len(blocks), name, module, matrices, stack))
    _check_unshared(model, blocks)
    if path is not None:
        check_way(model, path, blocks)
    return blocks


def _path_through(model: nn.Module) -> TextPath | None:
    """Return the way of text through `model`; None where it cannot be followed, and its family says where blocks are.

    A pass of calibration text is held against its blocks all the same.
    """
    try:
        return text_path(model)
    except ModelError:
        return None


def _matrices(block: str, module: nn.Module, index: int, keep: set[str], path: TextPath | None) -> tuple[Matrix, ...]:
    """Return the matrices of linear layers and of experts that text reaches, in the order of their definition."""
    plain, mixtures = dict(linears(module)), dict(experts(module))
    found: list[Matrix] = []
    for name, _ in module.named_modules():
        place = f"{block}.{name}"
        if path is not None and place not in path.times:
            continue
        if name in mixtures:
            for parameter in EXPERT_PARAMETERS:
                count = mixtures[name].get_parameter(parameter).shape[0]
                found += [
                    Matrix(f"{place}.{parameter}.{expert}", mixtures[name], index, parameter, expert)
                    for expert in range(count)
                ]
        elif name in plain and name not in keep:
            found.append(Matrix(place, plain[name], index))
    return tuple(found)


def _check_unshared(model: nn.Module, blocks: list[Block]) -> None:
    planned = {id(matrix.tensor): matrix.parameter_name for block in blocks for matrix in block.matrices}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owner = planned.get(id(parameter))
        if owner is not None and name != owner:
            raise ModelError(f"{owner} is also {name}; a shared matrix cannot be pruned for one place only")


def _submodule(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None
