"""Finds a block's neurons: the inputs of the last matrix of its feed-forward network, or of each expert's."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from mwanda.models import Block, Matrix


DOWN = ("down_proj", "dense_4h_to_h", "fc2", "wo", "c_proj", "w2")
"""What families call the last matrix; attention has a `c_proj` and a `wo` of its own."""

GATES = ("gate_proj", "wi_0", "gate_up_proj")
"""Linear layers whose output, or its first half where it is twice as wide, goes through the activation function."""


@dataclass(frozen=True)
class FeedForward:
    """One feed-forward network of a block, or one expert of a mixture.

    Args:
        down: the matrix whose inputs are the neurons.
        before: the matrices whose outputs make these inputs.
        gate: the linear layer whose sign says which neurons are active, where they are gated and it can be watched.
    """

    down: Matrix
    before: tuple[Matrix, ...]
    gate: nn.Module | None

    @property
    def neurons(self) -> int:
        """How many there are."""
        return self.down.shape[1]

    def weights_per_neuron(self) -> int:
        """Return the number of weights into and out of a neuron."""
        return self.down.shape[0] + sum(matrix.weight.numel() // self.neurons for matrix in self.before)

    def zeros_per_neuron(self) -> Int[Tensor, " N"]:
        """Return how many of the weights into and out of each neuron are zero."""
        zeros = (self.down.weight == 0).sum(dim=0)
        for matrix in self.before:
            # Gate and up may lie in one matrix, one half after the other.
            zeros = zeros + (matrix.weight == 0).sum(dim=1).view(-1, self.neurons).sum(dim=0)
        return zeros.cpu()


def feed_forwards(block: Block) -> list[FeedForward]:
    """Return the feed-forward parts of a block in the order of its matrices; none where the names are not known."""
    return [_around(block, matrix) for matrix in block.matrices if _is_down(block, matrix)]


def positive_per_sequence(output: Tensor, neurons: int) -> Int[Tensor, "B N"]:
    """Return on how many tokens of each sequence a gate (sequences × tokens × outputs) lets each neuron be active."""
    return (output[..., :neurons] > 0).sum(dim=1, dtype=torch.int64)


def _is_down(block: Block, matrix: Matrix) -> bool:
    if matrix.expert is not None:
        return matrix.parameter == "down_proj"
    path = matrix.name.removeprefix(f"{block.name}.")
    inside_attention = "attn" in path or "attention" in path.lower()
    return path == "output.dense" or (path.rpartition(".")[2] in DOWN and not inside_attention)


def _around(block: Block, down: Matrix) -> FeedForward:
    path, _, leaf = down.name.rpartition(".")
    if down.expert is not None:
        same = (down.module, down.expert)
        before = [each for each in block.matrices if (each.module, each.expert) == same and each is not down]
        return FeedForward(down, tuple(before), None)
    if leaf == "dense":  # BERT's naming: the two matrices are not in one module
        siblings = [each for each in block.matrices if each.name == f"{block.name}.intermediate.dense"]
    else:
        siblings = [each for each in block.matrices if each.expert is None and each.name.rpartition(".")[0] == path]
    before = [each for each in siblings if each is not down and each.shape[0] % down.shape[1] == 0]
    gates = [each.module for each in before if each.name.rpartition(".")[2] in GATES]
    return FeedForward(down, tuple(before), gates[0] if gates else None)
