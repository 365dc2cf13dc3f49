"""One matrix to score and mask, without a forward pass in the measured time."""

import published
import torch
from measure import timed
from torch import Tensor, nn

from mwanda.calibration import CalibrationSet
from mwanda.criteria.wanda import Wanda
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner
from mwanda.schedules.uniform import Uniform


SPARSITY = 0.5
TOKENS = 8


class OneMatrix(nn.Module):
    """A model of one matrix, some of whose weights are equal or zero."""

    def __init__(self, rows: int, columns: int):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(rows, columns, generator=generator) * 0.02
        weight[::64] = (weight[::64] * 100).round() / 64
        self.embedding = nn.Embedding(TOKENS, columns)
        # Whole numbers, whose squares add up exactly: both sides then have the same norms, and equal ones among them.
        self.embedding.weight.data = torch.randint(1, 5, (TOKENS, columns), generator=generator).float()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(columns, rows, bias=False))])
        self._dense = weight
        self._norms = self.embedding.weight.data.square().sum(dim=0).sqrt()
        self._calibration = CalibrationSet(("l0",), (torch.arange(TOKENS)[None],), "one sequence")

    def get_input_embeddings(self) -> nn.Embedding:
        """Return what tokens are embedded with, as models of transformers do."""
        return self.embedding

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Tensor:
        """Return what the matrix makes of the tokens."""
        output: Tensor = self.blocks[0](self.embedding(input_ids))
        return output

    @property
    def weight(self) -> Tensor:
        """The matrix."""
        return self.blocks[0][0].weight.data

    def ours(self) -> float:
        """Prune the dense matrix; return the seconds for scores, mask and zeroing."""
        self.weight.copy_(self._dense)
        pruner = Pruner(order="oneshot")
        report = pruner.prune(self, self._calibration, Wanda(), Uniform(), Unstructured(), SPARSITY)
        return report.seconds["prune"]

    def plain(self) -> float:
        """Return the seconds for scores and mask, without zeroing."""
        return timed(lambda: published.lowest(self._dense, self._norms, SPARSITY))()

    def check(self) -> None:
        """Fail unless both remove the same weights."""
        self.ours()
        expected = self._dense.masked_fill(published.lowest(self._dense, self._norms, SPARSITY), 0)
        assert torch.equal(self.weight, expected), "the masks differ"
