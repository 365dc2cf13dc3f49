"""Experts of a mixture, run so that a pass can be seen, and can wait, between their two products.

What an expert's second matrix multiplies is made inside the experts' own forward pass, where no module is called. Here
it is written once more, as an implementation that transformers chooses through its own registry.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear

from mwanda.kernels import grouped
from mwanda.models import Block, Matrix
from mwanda.models.layers import EXPERT_PARAMETERS, experts


NAME = "in_two_steps"


class Between(nn.Module):
    """Called after the first and before the second product of the experts of one module; does nothing itself."""

    def forward(self, made: Float[Tensor, "S I"], chosen: Int[Tensor, "N k"]) -> Float[Tensor, "S I"]:
        """Return what it is called with: rows as `in_order_of_experts` puts them."""
        return made


class Product(nn.Module):
    """Multiplies the rows that are sent to one expert by one of its matrices, so that both can be seen."""

    def forward(self, rows: Float[Tensor, "n I"], weight: Float[Tensor, "O I"], expert: int) -> Float[Tensor, "n O"]:
        """Return `rows · weightᵀ`; `expert` is for who watches."""
        return linear(rows, weight)


_PRODUCTS: WeakKeyDictionary[nn.Module, dict[str, Product]] = WeakKeyDictionary()
_BETWEEN: WeakKeyDictionary[nn.Module, Between] = WeakKeyDictionary()


def place_of(matrix: Matrix) -> nn.Module:
    """Return the module that is called with what a matrix multiplies.

    For the second matrix of an expert that takes `in_two_steps`.
    """
    if matrix.expert is None or matrix.parameter == EXPERT_PARAMETERS[0]:
        return matrix.module
    return _BETWEEN.setdefault(matrix.module, Between())


def product_of(module: nn.Module, parameter: str) -> Product:
    """Return the module that is called, `in_two_steps`, for each expert's product with this parameter."""
    return _PRODUCTS.setdefault(module, {name: Product() for name in EXPERT_PARAMETERS})[parameter]


@contextmanager
def in_two_steps(blocks: Iterable[Block]) -> Iterator[None]:
    """Have experts make all that their second matrices multiply before any of these is used."""
    before: dict[int, tuple[Any, str]] = {}  # mostly one configuration for all
    for block in blocks:
        for _, module in experts(block.module):
            config: Any = module.config
            before.setdefault(id(config), (config, config._experts_implementation))
            _register()
            config._experts_implementation = NAME
    try:
        yield
    finally:
        for config, implementation in before.values():
            config._experts_implementation = implementation


def in_order_of_experts(chosen: Int[Tensor, "N k"]) -> Int[Tensor, " S"]:
    """Return the places `token * k + choice` sorted by the expert that is chosen there, then by token; S = N · k."""
    return chosen.flatten().argsort(stable=True)


def ends_of_experts(chosen: Int[Tensor, "N k"], order: Int[Tensor, " S"], experts: int) -> Int[Tensor, " E"]:
    """Return behind how many rows, in the `order` of `in_order_of_experts`, those of each expert end."""
    numbers = torch.arange(experts, device=order.device)
    return torch.searchsorted(chosen.flatten()[order], numbers, right=True, out_int32=True)


def counts_of_experts(ends: Int[Tensor, " E"]) -> list[int]:
    """Return how many rows each expert has; a device is waited for once."""
    counts: list[int] = ends.diff(prepend=ends.new_zeros(1)).tolist()
    return counts


def _forward(
    module: Any,
    hidden_states: Float[Tensor, "N H"],
    top_k_index: Int[Tensor, "N k"],
    top_k_weights: Float[Tensor, "N k"],
) -> Float[Tensor, "N H"]:
    """Return `Σ_k w_k · down_k(gate(gate_up_k(x)))` of each token."""
    order, choices = in_order_of_experts(top_k_index), top_k_index.shape[1]
    ends = ends_of_experts(top_k_index, order, module.num_experts)
    if _in_one_go(module, hidden_states):
        first, second = (module.get_parameter(name) for name in EXPERT_PARAMETERS)
        made = module._apply_gate(grouped.product(hidden_states[order // choices], first, ends))
        made = _seen_between(module, made, top_k_index)
        return _by_token(grouped.product(made, second, ends), order, top_k_weights, hidden_states.dtype)
    counts = counts_of_experts(ends)
    made = _first(module, hidden_states, order // choices, counts)
    made = _seen_between(module, made, top_k_index)
    products = torch.cat(list(_products(module, EXPERT_PARAMETERS[1], made.split(counts))))
    return _by_token(products, order, top_k_weights, hidden_states.dtype)


def _in_one_go(module: Any, hidden: Float[Tensor, "N H"]) -> bool:
    """Return whether all experts multiply together: nobody watches one of them, and the device can."""
    watched = any(each._forward_hooks for each in _PRODUCTS.get(module, {}).values())
    return not watched and all(grouped.takes(hidden, module.get_parameter(name)) for name in EXPERT_PARAMETERS)


def _seen_between(module: Any, made: Float[Tensor, "S I"], chosen: Int[Tensor, "N k"]) -> Float[Tensor, "S I"]:
    between = _BETWEEN.get(module)
    return made if between is None else between(made, chosen)


def _by_token(
    products: Float[Tensor, "S H"], order: Int[Tensor, " S"], weights: Float[Tensor, "N k"], dtype: torch.dtype
) -> Float[Tensor, "N H"]:
    by_token = products[order.argsort()].view(*weights.shape, -1)
    return (by_token * weights[..., None]).sum(dim=1).to(dtype)


def _first(
    module: Any, hidden: Float[Tensor, "N H"], tokens: Int[Tensor, " S"], counts: list[int]
) -> Float[Tensor, "S I"]:
    rows = (hidden[own] for own in tokens.split(counts))
    return torch.cat([module._apply_gate(product) for product in _products(module, EXPERT_PARAMETERS[0], rows)])


def _products(module: Any, parameter: str, rows: Iterable[Float[Tensor, "n I"]]) -> Iterator[Float[Tensor, "n O"]]:
    """Yield each expert's product, made when it is asked for."""
    multiply = product_of(module, parameter)
    for expert, (own, weight) in enumerate(zip(rows, module.get_parameter(parameter), strict=True)):
        yield multiply(own, weight, expert)


def _register() -> None:
    """Let transformers know this implementation; its registry loads torch's compiler, so it waits for a mixture."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register(NAME, _forward)
