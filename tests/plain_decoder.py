"""A decoder of a few lines that belongs to no family, for what no real model does."""

from collections.abc import Callable

import torch
from tiny_models import tiny_calibration
from torch import Tensor, nn

from mwanda.calibration import CalibrationSet
from mwanda.criteria import Criterion
from mwanda.criteria.wanda import Wanda
from mwanda.models import Matrix, blocks_of
from mwanda.patterns import Pattern
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner, PruningReport
from mwanda.pruner.engine import Order
from mwanda.schedules import Schedule
from mwanda.schedules.uniform import Uniform


CALIBRATION = tiny_calibration(languages=3, sequences=(2, 3, 2), length=6)
BLOCKS = [[f"layers.{block}.up", f"layers.{block}.down"] for block in range(3)]
MATRICES = [name for names in BLOCKS for name in names]


class PlainBlock(nn.Module):
    """A residual block of two linear layers."""

    def __init__(self, hidden: int, inner: int):
        super().__init__()
        self.up = nn.Linear(hidden, inner)
        self.down = nn.Linear(inner, hidden)

    def forward(self, states: Tensor) -> Tensor:
        """Add what the two layers make of `states`."""
        return states + self.down(torch.relu(self.up(states)))


class PlainDecoder(nn.Module):
    """Embedding, blocks at `layers`, and a head.

    Args:
        hidden: features between blocks.
        inner: features within a block.
        blocks: how many.
        make_block: makes a block from the two sizes.
    """

    def __init__(
        self,
        hidden: int = 7,
        inner: int = 13,
        blocks: int = 3,
        make_block: Callable[[int, int], nn.Module] = PlainBlock,
    ):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embed = nn.Embedding(259, hidden)
        self.layers = nn.ModuleList(make_block(hidden, inner) for _ in range(blocks))
        self.head = nn.Linear(hidden, 259)
        self.passes = 0
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Tensor:
        """Return the logits."""
        self.passes += int(self.embed.weight.any())  # but for that without weights which finds the blocks
        states = self.embed(input_ids)
        for layer in self.layers:
            states = layer(states)
        logits: Tensor = self.head(states)
        return logits


def prune_plain(
    model: nn.Module,
    sparsity: float = 0.5,
    order: Order = "arrival",
    criterion: Criterion | None = None,
    schedule: Schedule | None = None,
    pattern: Pattern | None = None,
    calibration: CalibrationSet = CALIBRATION,
    batch_size: int = 3,
) -> PruningReport:
    """Prune in place, with Wanda, uniformly and unstructured where nothing else is asked for."""
    return Pruner(order, batch_size).prune(
        model, calibration, criterion or Wanda(), schedule or Uniform(), pattern or Unstructured(), sparsity
    )


def matrices_of(model: nn.Module) -> list[Matrix]:
    """Return the prunable matrices of all blocks."""
    return [matrix for block in blocks_of(model) for matrix in block.matrices]


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of all weights."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(model: nn.Module, before: dict[str, Tensor]) -> list[str]:
    """Return the names of the tensors that differ from `before`."""
    return [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
