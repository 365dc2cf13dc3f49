"""Models larger than memory: everything but the blocks is loaded, the blocks stay on disk until they are asked for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mwanda.models.block import Block
from mwanda.models.family import blocks_of
from mwanda.models.weights import Weights


def load_around_blocks(
    load: Callable[..., tuple[Any, Any]], skeleton: nn.Module, device: torch.device, folder: Path
) -> tuple[Any, Any, Mapping[str, Tensor]]:
    """Load a model whose blocks stay on disk; return it, what the loader found, and the weights of the blocks.

    Args:
        load: takes the keyword arguments of `from_pretrained` that say where things go.
        skeleton: the same model on the meta device.
        device: for everything but the blocks.
        folder: where weights are written that the checkpoint stores in another form (experts one by one).
    """
    from accelerate.hooks import remove_hook_from_module

    where = _placement(skeleton, {block.module for block in blocks_of(skeleton)}, str(device))
    model, found = load(device_map=where, offload_folder=str(folder))
    # The loader has made a table of what is where on disk, and hooks that would read a module at every call. We read
    # a block at a time, and keep it while all batches pass.
    first: Any = blocks_of(model)[0].matrices[0].module
    stored: Mapping[str, Tensor] = first._hf_hook.weights_map.dataset
    remove_hook_from_module(model, recurse=True)
    return model, found, stored


@contextmanager
def fetched_on_call(weights: Weights, blocks: Sequence[Block]) -> Iterator[None]:
    """Have each block read when it is called and released when it has returned, for code that runs a whole model."""
    hooks = []
    for block in blocks:

        def fetch(module: nn.Module, args: Any, block: Block = block) -> None:
            weights.fetch(block)

        def release(module: nn.Module, args: Any, output: Any, block: Block = block) -> None:
            weights.release(block)

        hooks += [block.module.register_forward_pre_hook(fetch), block.module.register_forward_hook(release)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _placement(module: nn.Module, blocks: set[nn.Module], device: str, path: str = "") -> dict[str, str]:
    """Return where each part goes, in the form of transformers' `device_map`."""
    prefix = f"{path}." if path else ""
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    where = {prefix + name: device for name, _ in own}
    for name, child in module.named_children():
        if child in blocks:
            where[prefix + name] = "disk"
        elif blocks.isdisjoint(child.modules()):
            where[prefix + name] = device
        else:
            where |= _placement(child, blocks, device, prefix + name)
    return where
