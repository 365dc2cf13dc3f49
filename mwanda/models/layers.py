"""What in a block can be pruned: linear layers, and the experts of a mixture; and the routers, which never are."""

from collections.abc import Iterator

from torch import nn
from transformers.pytorch_utils import Conv1D

from mwanda.errors import ModelError


EXPERT_PARAMETERS = ("gate_up_proj", "down_proj")
"""The matrices of all experts of a mixture, each parameter experts × out × in, in the order of their use."""


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


def is_convolution(module: nn.Module) -> bool:
    """Return whether a module is one of PyTorch's convolutions, as the short one before a state-space layer."""
    return isinstance(module, nn.modules.conv._ConvNd)


def check_layout(block: nn.Module, name: str) -> None:
    """Refuse a block with several matrices in one parameter, unless they are experts as above or a convolution.

    Raises:
        ModelError: there is such a parameter.
    """
    supported = {id(mixture.get_parameter(each)) for _, mixture in experts(block) for each in EXPERT_PARAMETERS}
    for path, module in block.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            if parameter.dim() == 3 and id(parameter) not in supported and not is_convolution(module):
                raise ModelError(
                    f"{name}.{path}.{key} holds several matrices in one {tuple(parameter.shape)} parameter in a layout "
                    f"that is not supported; supported are experts with {' and '.join(EXPERT_PARAMETERS)} of "
                    "experts × out × in without biases or norms, as in Mixtral and Qwen3-MoE"
                )
