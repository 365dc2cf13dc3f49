"""What of a model is left dense, and why."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from mwanda.errors import ModelError
from mwanda.models.block import Block
from mwanda.models.family import family_of
from mwanda.models.layers import is_convolution, linears, routers
from mwanda.models.text_path import TextPath, text_path


UNREACHED = "calibration text does not pass through it"
UNCALLED = "no layer that calibration text is passed to"


def left_dense(model: Any, blocks: Sequence[Block]) -> dict[str, int]:
    """Return how many weights of a transformers model are not among the matrices of `blocks`, by what they are and why.

    The model may be on the meta device; a part that text does not pass through (a vision tower) is one entry.
    """
    planned = {id(matrix.tensor) for block in blocks for matrix in block.matrices}
    within = left_alone(model, blocks)
    path = _path(model)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    # On the meta device tying is what the configuration says, as no storage can be compared.
    tied = bool(getattr(model.config, "tie_word_embeddings", False))
    pruned = {name for name, parameter in model.named_parameters() if id(parameter) in planned}
    used = pruned | {name for name, parameter in model.named_parameters() if parameter is embedding.weight}
    around_head = _around(model, head, pruned)
    groups: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if id(parameter) in planned:
            continue
        unreached = None if path is None else _part(name, lambda part: not path.passes_below(part), used)
        if parameter is embedding.weight:
            reason = "input embeddings, tied to the LM head: never pruned" if tied else "input embeddings: never pruned"
        elif head is not None and parameter is getattr(head, "weight", None):
            reason = "LM head: never pruned" + (", tied to the input embeddings" if tied else "")
        elif around_head and name.startswith(around_head):
            reason = "LM head: never pruned"
        elif name in within:
            reason = within[name]
        elif any(name.startswith(f"{block.name}.") for block in blocks):
            reason = "norms and biases: not matrices"
        elif unreached is not None:
            reason = f"{_open(unreached)}: {UNREACHED}"
        elif parameter.dim() < 2:
            reason = "norms and biases: not matrices"
        else:
            reason = f"{_open(_part(name, lambda _: True, used) or name)}: outside the blocks"
        groups[reason] = groups.get(reason, 0) + parameter.numel()
    return groups


def left_alone(model: nn.Module, blocks: Sequence[Block]) -> dict[str, str]:
    """Return why each parameter of the blocks that has two or more dimensions is not pruned, by its name."""
    keep = family_of(model).keep
    planned = {id(matrix.tensor) for block in blocks for matrix in block.matrices}
    path = _path(model)
    reasons: dict[str, str] = {}
    for block in blocks:
        routing, layers = routers(block.module), dict(linears(block.module))
        for name, parameter in block.module.named_parameters():
            owner = name.rpartition(".")[0]
            if parameter.dim() < 2 or id(parameter) in planned:
                continue
            if owner in routing:
                reason = "a router, which decides which expert sees a token: never pruned"
            elif owner in keep:
                reason = "left alone by its family"
            elif owner in layers and path is not None and f"{block.name}.{owner}" not in path.times:
                reason = UNCALLED
            elif is_convolution(block.module.get_submodule(owner)):
                reason = "a convolution"
            else:
                reason = "no linear layer"
            reasons[f"{block.name}.{name}"] = f"{_open(name)} in the blocks: {reason}"
    return reasons


def _path(model: nn.Module) -> TextPath | None:
    try:
        return text_path(model)
    except ModelError:
        return None


def _around(model: nn.Module, head: nn.Module | None, pruned: set[str]) -> str:
    """Return how the names of an LM head begin, of which an encoder's has a layer of its own before the last one."""
    path = next((name for name, module in model.named_modules() if module is head), "")
    start = f"{path.partition('.')[0]}."
    return "" if not path or any(name.startswith(start) for name in pruned) else start


def _part(name: str, wanted: Callable[[str], bool], used: set[str]) -> str | None:
    """Return the largest part of the model that is wanted, holds a parameter and none of those that are used."""
    steps = name.split(".")
    parts = (".".join(steps[:count]) for count in range(1, len(steps)))
    return next(
        (part for part in parts if wanted(part) and not any(each.startswith(f"{part}.") for each in used)), None
    )


def _open(name: str) -> str:
    """Return a path with its numbers left open, so that what is alike in all blocks is told once."""
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name)
