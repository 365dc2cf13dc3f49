"""Watches the matrices of a block while gradients pass, and adds up their products with what would be removed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mwanda.calibration import Batch
from mwanda.models import Matrix
from mwanda.models.layers import EXPERT_PARAMETERS
from mwanda.pruner.damage.curves import level_of_rows
from mwanda.pruner.damage.products import RowDamage, directional_products, routed_products
from mwanda.pruner.experts import counts_of_experts, ends_of_experts, in_order_of_experts, product_of
from mwanda.pruner.observe import by_sequence
from mwanda.system.device import sent


class Recorder:
    """Products of several matrices, for one batch at a time.

    Args:
        matrices: of one block.
        codes: of each matrix, at which level a weight is removed.
        levels: how many there are.
        apart: take the sum of squares of the single weights' products.
        by_row: the weight of a sequence of each language in the damage of single rows, where that is asked for too.
    """

    def __init__(
        self,
        matrices: Sequence[Matrix],
        codes: Mapping[str, Int[Tensor, "O I"]],
        levels: int,
        *,
        apart: bool = False,
        by_row: Float[Tensor, " L"] | None = None,
    ):
        self._matrices, self._codes, self._levels, self._apart = matrices, codes, levels, apart
        self._by_row = by_row
        self.rows: dict[str, Float[Tensor, " O"]] = {
            matrix.name: torch.zeros(matrix.shape[0], dtype=torch.float64, device=matrix.weight.device)
            for matrix in (matrices if by_row is not None else ())
        }
        self._batch: Batch | None = None
        self._routing: dict[nn.Module, tuple[Tensor, ...]] = {}
        self.products: dict[str, Float[Tensor, "B K"]] = {}

    @contextmanager
    def watching(self, batch: Batch) -> Iterator[None]:
        """Hook the matrices while the block is run on `batch`, and while gradients go back through it."""
        self._batch = batch
        hooks: list[Any] = []
        mixtures = {matrix.module for matrix in self._matrices if matrix.expert is not None}
        for matrix in self._matrices:
            if matrix.expert is None:
                hooks.append(matrix.module.register_forward_hook(partial(self._see, matrix)))
        for module in mixtures:
            hooks.append(module.register_forward_pre_hook(self._see_routing))
            for parameter in EXPERT_PARAMETERS:
                own = {m.expert: m for m in self._matrices if m.module is module and m.parameter == parameter}
                hooks.append(product_of(module, parameter).register_forward_hook(partial(self._see_expert, own)))
        try:
            yield
        finally:
            self._batch = None
            self._routing.clear()
            for hook in hooks:
                hook.remove()

    def begin(self) -> None:
        """Start anew, for the gradients of another draw."""
        assert self._batch is not None
        shape = (self._batch.tokens.shape[0], self._levels)
        self.products = {
            matrix.name: torch.zeros(shape, dtype=torch.float64, device=matrix.weight.device)
            for matrix in self._matrices
        }

    def _see(self, matrix: Matrix, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        assert self._batch is not None
        tokens, inputs = self._batch.tokens, args[0].detach()

        def add(gradient: Tensor) -> None:
            self.products[matrix.name] += directional_products(
                by_sequence(inputs, tokens),
                by_sequence(gradient, tokens),
                matrix.weight,
                self._codes[matrix.name],
                self._levels,
                apart=self._apart,
                rows=self._rows_of(matrix),
            )

        output.register_hook(add)

    def _rows_of(self, matrix: Matrix) -> RowDamage | None:
        """Return where the damage of a matrix's rows is added to."""
        if self._by_row is None:
            return None
        assert self._batch is not None
        total = self.rows[matrix.name]
        weights = sent(self._by_row, total.device)[self._batch.languages.to(total.device, non_blocking=True)]
        return RowDamage(total, level_of_rows(self._levels), weights)

    def _see_routing(self, module: Any, args: tuple[Any, ...]) -> None:
        """Note of which sequence the rows are that each expert will multiply."""
        assert self._batch is not None
        chosen = args[1]
        order = in_order_of_experts(chosen)
        sequences = order // chosen.shape[1] // self._batch.tokens.shape[1]
        counts = counts_of_experts(ends_of_experts(chosen, order, module.num_experts))
        self._routing[module] = sequences.split(counts)

    def _see_expert(
        self, own: Mapping[int | None, Matrix], module: nn.Module, args: tuple[Any, ...], output: Tensor
    ) -> None:
        inputs, _, expert = args
        matrix = own[expert]
        sequences, inputs = self._routing[matrix.module][expert], inputs.detach()

        def add(gradient: Tensor) -> None:
            assert self._batch is not None
            self.products[matrix.name] += routed_products(
                inputs,
                gradient,
                sequences,
                self._batch.tokens.shape[0],
                matrix.weight,
                self._codes[matrix.name],
                self._levels,
                apart=self._apart,
                rows=self._rows_of(matrix),
            )

        output.register_hook(add)
