"""The published procedure of Wanda (Sun et al., ICLR 2024, section 3 and algorithm 1), written plainly.

The inputs of the first block are captured for all sequences. Then, block by block: the dense block runs over each
sequence while hooks add up the squared norms of the columns of each matrix's input; each matrix loses the weights with
the lowest `|W| · ‖X‖` of each row; and the pruned block runs again over each sequence for the next block's inputs.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mwanda.calibration import Batch, CalibrationSet
from mwanda.models import Block, Matrix, blocks_of
from mwanda.models.forward import forward


Call = tuple[tuple[Any, ...], dict[str, Any]]
"""With what a block is called beside its hidden states."""


@torch.no_grad()
def prune(model: nn.Module, calibration: CalibrationSet, sparsity: float, batch_size: int = 1) -> None:
    """Prune in place; the published code takes one sequence at a time."""
    blocks = blocks_of(model)
    states, calls = capture(model, blocks, calibration.batches(batch_size, next(model.parameters()).device))
    for block, arguments in zip(blocks, calls, strict=True):
        squares: dict[str, Tensor] = {}
        with _adding_up(block.matrices, squares):
            _run(block, states, arguments)
        for matrix in block.matrices:
            weight = matrix.weight
            weight[lowest(weight, squares[matrix.name].sqrt(), sparsity)] = 0
        states = _run(block, states, arguments)


def lowest(weight: Tensor, norms: Tensor, sparsity: float) -> Tensor:
    """Mark the share `sparsity` of each row that has the lowest `|W| · ‖X‖`, by a full stable sort."""
    scores = weight.abs() * norms
    order = torch.sort(scores, dim=1, stable=True).indices
    mask = torch.zeros_like(scores, dtype=torch.bool)
    return mask.scatter_(1, order[:, : int(sparsity * weight.shape[1])], True)


def capture(
    model: nn.Module, blocks: Sequence[Block], batches: Sequence[Batch]
) -> tuple[list[Tensor], list[list[Call]]]:
    """Return the hidden states that enter the first block, and per block the other arguments of each batch's call.

    No block runs: each hands on what it got, and the last leaves the model.
    """
    states: list[Tensor] = []
    calls: list[list[Call]] = [[] for _ in blocks]

    def recorder(index: int) -> Callable[..., tuple[Any]]:
        def record(hidden: Any, *others: Any, **named: Any) -> tuple[Any]:
            if index == 0:
                states.append(hidden)
            calls[index].append((others, named))
            if index == len(blocks) - 1:
                raise _LeavingError
            return (hidden,)

        return record

    for block in blocks:
        block.module.forward = recorder(block.index)
    try:
        for batch in batches:
            try:
                forward(model, batch.tokens)
            except _LeavingError:
                continue
    finally:
        for block in blocks:
            del block.module.forward
    return states, calls


def _run(block: Block, states: Sequence[Tensor], arguments: Sequence[Call]) -> list[Tensor]:
    outputs = []
    for hidden, (others, named) in zip(states, arguments, strict=True):
        output = block.module(hidden, *others, **named)
        outputs.append(output[0] if isinstance(output, tuple) else output)
    return outputs


@contextmanager
def _adding_up(matrices: Sequence[Matrix], squares: dict[str, Tensor]) -> Iterator[None]:
    """Add the squared norms of the columns of each input to `squares` while blocks run."""

    def hook(name: str) -> Callable[..., None]:
        def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            more = inputs[0].flatten(0, -2).float().norm(dim=0).square()
            squares[name] = squares[name] + more if name in squares else more

        return add

    hooks = [matrix.module.register_forward_pre_hook(hook(matrix.name)) for matrix in matrices]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


class _LeavingError(Exception):
    """Leaves a forward pass half-way."""
