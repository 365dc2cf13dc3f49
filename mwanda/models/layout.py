"""Holds the way of text through a model against its lists of blocks: what is pruned must be all that text passes."""

from collections.abc import Iterable, Sequence

from torch import nn

from mwanda.errors import ModelError
from mwanda.models.block import Block
from mwanda.models.layers import experts, linears
from mwanda.models.text_path import TextPath


def block_lists_on(path: TextPath, model: nn.Module) -> list[str]:
    """Return the paths of the lists whose members text passes through one by one, in the order in which it does.

    A list within a member of another one (experts within a block) is part of that member.
    """
    found: list[str] = []
    for name, module in model.named_modules():
        within = any(name.startswith(f"{other}.") for other in found)
        if isinstance(module, nn.ModuleList) and not within and _has_blocks(path, name, module):
            found.append(name)
    first = {name: place for place, name in reversed(list(enumerate(call.name for call in path.calls)))}
    begins = {name: min(place for call, place in first.items() if call.startswith(f"{name}.")) for name in found}
    return sorted(found, key=lambda name: begins[name])


def check_way(model: nn.Module, path: TextPath, blocks: Sequence[Block]) -> None:
    """Refuse a model through which text takes another way than once through each of `blocks`, one after another.

    Raises:
        ModelError: it does; the message names the first module where it does.
    """
    for block in blocks:
        _check_block(block, path)
    _check_order(path, blocks)
    for name, module in model.named_modules():
        listed = isinstance(module, nn.ModuleList) and not any(name.startswith(f"{block.name}.") for block in blocks)
        if listed and name not in {block.stack for block in blocks} and _has_blocks(path, name, module):
            raise ModelError(
                f"text also passes through {name}, which is not among the lists of blocks that would be pruned "
                f"({', '.join(sorted({block.stack for block in blocks}))}); add a family as CONTRIBUTING.md describes"
            )


def _has_blocks(path: TextPath, name: str, modules: Iterable[nn.Module]) -> bool:
    """Return whether text enters a member of the list and prunable layers within it."""
    for index, module in enumerate(modules):
        place = f"{name}.{index}"
        below = [each for each, _ in (*linears(module), *experts(module)) if each]
        if place in path.times and any(f"{place}.{each}" in path.times for each in below):
            return True
    return False


def _check_block(block: Block, path: TextPath) -> None:
    if not block.matrices:
        raise ModelError(
            f"{block.name} has no linear layer that text passes through; a model with such blocks cannot be pruned"
        )
    modules = {matrix.name if matrix.expert is None else block.name: matrix for matrix in block.matrices}
    for name in (block.name, *modules):
        if path.times[name] > 1:
            raise ModelError(
                f"one pass of text enters {name} {path.times[name]} times; a matrix that serves several layers, as in "
                "ALBERT, cannot be pruned for all of them at once; choose a model whose blocks have their own weights"
            )
    vectors = {call.name: call.vectors for call in path.calls}
    for name, matrix in modules.items():
        if matrix.expert is None and vectors[name] != path.tokens:
            raise ModelError(
                f"{name} is given {vectors[name]} vectors for {path.tokens} tokens, so that they cannot be told apart "
                "by language; choose a model that reads one vector a token"
            )
    reached = {_without_index(name) for name in modules}
    for name, _ in linears(block.module):
        if name and f"{block.name}.{name}" not in path.times and _without_index(f"{block.name}.{name}") in reached:
            raise ModelError(
                f"text passes through some members only of the list that {block.name}.{name} is in; experts that are "
                "modules of their own cannot be pruned, those that share their parameters can (Mixtral, Qwen3-MoE)"
            )


def _check_order(path: TextPath, blocks: Sequence[Block]) -> None:
    places = {block.name: block for block in blocks}
    met = [places[call.name] for call in path.calls if call.name in places]
    stacks = [block.stack for block in met]
    turns = [stack for place, stack in enumerate(stacks) if place == 0 or stack != stacks[place - 1]]
    if len(set(turns)) < len(turns):
        raise ModelError(
            f"text passes through the lists {' and '.join(dict.fromkeys(turns))} by turns; blocks can be pruned that "
            "lie in one list, or in lists that follow one another; choose another model"
        )
    if [block.index for block in met] != list(range(len(blocks))):
        raise ModelError(
            f"text passes through {met[0].stack} in another order than that of the list; add a family as "
            "CONTRIBUTING.md describes"
        )


def _without_index(name: str) -> str:
    """Return a module's path with every number and key of a list within the block left open, but for its own name."""
    return ".".join("*" if any(letter.isdigit() for letter in part) else part for part in name.split("."))
