"""The transformer blocks of a model and the weight matrices in them, for every family through one small adapter."""

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mwanda.errors import ModelError


EXPERT_PARAMETERS = ("gate_up_proj", "down_proj")
"""The matrices of all experts of a mixture, each parameter experts × out × in, in the order of their use."""


@dataclass(frozen=True)
class Matrix:
    """One prunable weight matrix: a parameter of its module, or one expert's part of it."""

    name: str
    module: nn.Module
    block: int
    parameter: str = "weight"
    expert: int | None = None

    @property
    def tensor(self) -> nn.Parameter:
        """The parameter itself; for an expert the one that holds all experts."""
        return self.module.get_parameter(self.parameter)

    @property
    def weight(self) -> Float[Tensor, "out in"]:
        """The weight as out × in, whatever the module's layout: a view, so that writing to it writes the model."""
        values = self.tensor.data
        if self.expert is not None:
            return values[self.expert]
        return values.T if isinstance(self.module, Conv1D) else values

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        rows, columns = self.weight.shape
        return rows, columns

    @property
    def parameter_name(self) -> str:
        """The name of the parameter in the model, as in `model.named_parameters()`."""
        return f"{self.name}.{self.parameter}" if self.expert is None else self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Block:
    """One transformer block with its prunable matrices in the order in which they are defined.

    Args:
        index: counts over all lists of blocks of the model.
        name: its path in the model.
        module: the block.
        matrices: what can be pruned in it.
        stack: the path of the list that it is in; an encoder-decoder has two.
    """

    index: int
    name: str
    module: nn.Module
    matrices: tuple[Matrix, ...]
    stack: str

    @property
    def size(self) -> int:
        """The number of prunable weights."""
        return sum(matrix.weight.numel() for matrix in self.matrices)


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
    """Return the family of `model`, or the generic one that finds the block lists by itself."""
    config = getattr(model, "config", None)
    model_type = str(getattr(config, "model_type", ""))
    known = families().get(model_type)
    if known is not None:
        return known
    paths = [_path_of(model, stack, find_block_list(stack)) for stack in _stacks(model)]
    return Family("generic", (model_type,), (paths[0],), tuple(paths[1:]))


def find_block_list(model: nn.Module) -> str:
    """Return the path of the one list of alike modules that holds most prunable weights.

    Raises:
        ModelError: no list qualifies.
    """
    sizes = {
        path: sum(parameter.numel() for block in module for parameter in _prunable(block))
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len({type(block) for block in module}) == 1
    }
    # A list inside another list (experts inside a block) is smaller than the list that holds it.
    path = max(sizes, key=lambda candidate: sizes[candidate], default="")
    if not path or sizes[path] == 0:
        raise ModelError(
            f"no list of blocks with linear layers was found in {type(model).__name__}; "
            "add a family as CONTRIBUTING.md describes"
        )
    return path


def linears(block: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the linear layers of a block (`nn.Linear`, and GPT-2's transposed `Conv1D`) with their names in it."""
    for name, module in block.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            yield name, module


def experts(block: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of a block that hold all experts of a mixture in `EXPERT_PARAMETERS`, with their names in it.

    They are those that transformers' `use_experts_implementation` marks as gated, without biases, not transposed, and
    with nothing between an expert's second product and its routing weight.
    """
    layout = {"has_gate": True, "has_bias": False, "is_transposed": False, "has_post_expert_norm": False}
    for name, module in block.named_modules():
        marks = {mark: getattr(module, mark, None) for mark in layout}
        cubes = [key for key, value in module.named_parameters(recurse=False) if value.dim() == 3]
        if marks == layout and set(cubes) == set(EXPERT_PARAMETERS):
            yield name, module


def routers(block: nn.Module) -> set[str]:
    """Return the names in the block of its routers: a gate beside `experts` with one row of weights per expert."""
    found = set()
    for name, mixture in block.named_modules():
        chosen = getattr(mixture, "experts", None)
        count = len(chosen) if isinstance(chosen, nn.ModuleList) else getattr(chosen, "num_experts", None)
        for below, module in mixture.named_modules() if count else ():
            weight = getattr(module, "weight", None)
            named = not below.startswith("experts") and ("gate" in below or "router" in below)
            if named and isinstance(weight, nn.Parameter) and weight.dim() == 2 and weight.shape[0] == count:
                found.add(f"{name}.{below}".strip("."))
    return found


def blocks_of(model: nn.Module) -> list[Block]:
    """Return the blocks of `model` with their prunable matrices, in the order in which a forward pass meets them.

    No weight is read, so that the model may be on the meta device. Embeddings and the LM head lie outside the blocks
    and are never among them; neither are routers, which are small and decide which expert sees a token.

    Raises:
        ModelError: no blocks are found, a matrix shares its weight with another part of the model, or a parameter
            holds several matrices in a layout that is not supported.
    """
    family = family_of(model)
    blocks: list[Block] = []
    for stack, modules in family.block_lists(model):
        _check_layout(modules, stack)
        for index, module in enumerate(modules):
            name = f"{stack}.{index}"
            matrices = _matrices(name, module, len(blocks), routers(module).union(family.keep))
            blocks.append(Block(len(blocks), name, module, matrices, stack))
    _check_unshared(model, blocks)
    return blocks


def left_alone(model: nn.Module, blocks: Sequence[Block]) -> dict[str, str]:
    """Return why each parameter of the blocks that has two or more dimensions is not pruned, by its name."""
    keep = family_of(model).keep
    planned = {id(matrix.tensor) for block in blocks for matrix in block.matrices}
    reasons: dict[str, str] = {}
    for block in blocks:
        routing = routers(block.module)
        for name, parameter in block.module.named_parameters():
            owner = name.rpartition(".")[0]
            if parameter.dim() > 1 and id(parameter) not in planned:
                if owner in routing:
                    reason = "a router, which decides which expert sees a token: never pruned"
                else:
                    reason = "left alone by its family" if owner in keep else "no linear layer"
                reasons[f"{block.name}.{name}"] = f"{name} in the blocks: {reason}"
    return reasons


def _matrices(block: str, module: nn.Module, index: int, keep: set[str]) -> tuple[Matrix, ...]:
    """Return the matrices of linear layers and of experts, in the order in which their modules are defined."""
    plain, mixtures = dict(linears(module)), dict(experts(module))
    found: list[Matrix] = []
    for name, _ in module.named_modules():
        path = f"{block}.{name}"
        if name in mixtures:
            for parameter in EXPERT_PARAMETERS:
                count = mixtures[name].get_parameter(parameter).shape[0]
                found += [
                    Matrix(f"{path}.{parameter}.{expert}", mixtures[name], index, parameter, expert)
                    for expert in range(count)
                ]
        elif name in plain and name not in keep:
            found.append(Matrix(path, plain[name], index))
    return tuple(found)


def _prunable(block: nn.Module) -> Iterator[nn.Parameter]:
    for _, linear in linears(block):
        yield linear.get_parameter("weight")
    for _, mixture in experts(block):
        yield from (mixture.get_parameter(name) for name in EXPERT_PARAMETERS)


def _check_layout(modules: nn.ModuleList, path: str) -> None:
    supported = {id(parameter) for block in modules for parameter in _prunable(block)}
    for name, parameter in modules.named_parameters():
        if parameter.dim() == 3 and id(parameter) not in supported:
            raise ModelError(
                f"{path}.{name} holds several matrices in one {tuple(parameter.shape)} parameter in a layout that is "
                f"not supported; supported are experts with {' and '.join(EXPERT_PARAMETERS)} of experts × out × in "
                "without biases or norms, as in Mixtral and Qwen3-MoE"
            )


def _check_unshared(model: nn.Module, blocks: list[Block]) -> None:
    planned = {id(matrix.tensor): matrix.parameter_name for block in blocks for matrix in block.matrices}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owner = planned.get(id(parameter))
        if owner is not None and name != owner:
            raise ModelError(f"{owner} is also {name}; a shared matrix cannot be pruned for one place only")


def _stacks(model: Any) -> list[nn.Module]:
    """Return the parts of the model that have a block list each: encoder and decoder, or the model itself."""
    paired = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    return [model.get_encoder(), model.get_decoder()] if paired else [model]


def _path_of(model: nn.Module, part: nn.Module, path: str) -> str:
    """Return the path within `model` of what is at `path` within `part`."""
    prefix = next(name for name, module in model.named_modules() if module is part)
    return f"{prefix}.{path}" if prefix else path


def _submodule(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None
