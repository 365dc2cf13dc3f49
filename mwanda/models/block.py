"""A block of a model, and one prunable weight matrix."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


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
