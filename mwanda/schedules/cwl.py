"""CWL: sparsity follows how the languages relate in a block, in our reading of the paper (see docs/methods.md)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor

from mwanda.schedules.base import SIGNAL_FRACTION, BlockMatrix, Level, Looks, SignalFraction, project, spread
from mwanda.statistics import LanguageStatistics, Needs, language_root_mean_square


Similarity = Literal["pearson", "cosine", "spearman"]


@dataclass(frozen=True)
class CWL:
    """Correlation-weighted layerwise sparsity (after Choenni & Titov, EMNLP 2025).

    Args:
        protect: `shared` keeps more where languages agree, `specific` where they differ.
        width: λ; sparsities spread over `[S − λ, S + λ]` before the budget is met.
        similarity: how two language profiles are compared.
        weighting: `equal` for all matrices of a block, or by their `size`.
        level: see Schedule.
        signal_fraction: see Schedule.
    """

    protect: Literal["shared", "specific"] = "shared"
    width: Annotated[float, Ge(0)] = 0.08
    similarity: Similarity = "pearson"
    weighting: Literal["equal", "size"] = "equal"
    level: Level = "block"
    signal_fraction: SignalFraction = SIGNAL_FRACTION
    needs: ClassVar[Needs] = Needs.NORMS
    looks_at: ClassVar[Looks] = "inputs"

    def signal(self, matrices: Sequence[BlockMatrix]) -> Sequence[float]:
        """Return `C_k` (or `−C_k`), the mean similarity of the languages over the block's matrices."""
        values = torch.stack([_mean_similarity_of(matrix.statistics, self.similarity) for matrix in matrices]).tolist()
        sizes = [matrix.weight.numel() if self.weighting == "size" else 1 for matrix in matrices]
        mean = sum(value * size for value, size in zip(values, sizes, strict=True)) / sum(sizes)
        return (mean if self.protect == "shared" else -mean,)

    def allocate(
        self, signals: Sequence[Sequence[float]], shares: Sequence[float], target: float, lower: Sequence[float]
    ) -> list[float]:
        """Return sparsities that fall with the similarity of languages; uniform when there is one language."""
        return project(spread([signal for (signal,) in signals], self.width), shares, target, lower)


def _mean_similarity_of(statistics: LanguageStatistics | None, similarity: Similarity) -> Float[Tensor, ""]:
    """Return the mean similarity of the languages that count here (an expert need not meet every one)."""
    assert statistics is not None
    return mean_similarity(language_root_mean_square(statistics), similarity, statistics.votes)


def mean_similarity(
    profiles: Float[Tensor, "L in"], similarity: Similarity = "pearson", votes: Float[Tensor, " L"] | None = None
) -> Float[Tensor, ""]:
    """Return the mean over the `L(L−1)/2` pairs of languages of the similarity of their profiles.

    The sum over pairs of inner products of unit vectors is `(‖Σ_l u_l‖² − Σ_l ‖u_l‖²) / 2`, so that the cost grows
    with L, not with L². A profile without direction is similar to none (0). With weights of the languages a pair weighs
    `w_l w_k`: `u_l` becomes `w_l u_l`, and the number of pairs `((Σ_l w_l)² − Σ_l w_l²) / 2`. NaN where fewer than two
    languages have a weight.
    """
    values = profiles.double()
    if similarity == "spearman":
        values = _ranks(values)
    scale = values.abs().amax(dim=1, keepdim=True)
    if similarity != "cosine":
        values = values - values.mean(dim=1, keepdim=True)
    norms = torch.linalg.vector_norm(values, dim=1, keepdim=True)
    # Rounding leaves a trace of a constant profile behind the subtraction of its mean.
    directed = norms > 1e-12 * scale
    unit = torch.where(directed, values / norms.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
    weights = torch.ones_like(norms[:, 0]) if votes is None else votes.double()
    unit = unit * weights[:, None]
    total = unit.sum(dim=0).square().sum() - unit.square().sum()
    mean = total / (weights.sum().square() - weights.square().sum())
    return mean.where((weights > 0).sum() > 1, math.nan)


def _ranks(values: Float[Tensor, "L in"]) -> Float[Tensor, "L in"]:
    """Return each value's rank within its row, equals sharing the mean of their ranks."""
    ordered, values = values.sort(dim=1).values, values.contiguous()
    before, up_to = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
    return (before + up_to + 1).to(values.dtype) / 2
