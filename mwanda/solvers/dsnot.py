"""DSnoT: dynamic sparse no training, a mask refined by the expected error of each output."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mwanda.patterns.base import ComparisonGroup
from mwanda.solvers.base import Layer
from mwanda.statistics import Needs, mean_and_variance


@dataclass(frozen=True)
class DSnoT:
    """Grows and prunes weights of a mask until the expected error of each output is small (Zhang et al., ICLR 2024).

    The expected error of a row is `ε = Σ_{j pruned} w_j · E[x_j]`. One cycle restores the pruned weight with the
    largest `sign(ε) · w_j E[x_j] / Var(x_j)^γ` and prunes the kept weight with the lowest score among those whose loss
    moves ε towards zero, `sign(ε) · w_k E[x_k] < 0`; under N:M the lowest score in the restored weight's cell. The
    next cycle takes the next of both. A pair after which ε would have another sign, or be larger, is passed over (the
    paper ends the row there). A row is finished when |ε| is within the tolerance or it has no pairs left.

    Args:
        cycles: at most, the paper's 50.
        variance_exponent: γ; 0 ranks by the expected change alone.
        tolerance: of |ε|, an output's mean over tokens; the paper's 0.1 is a sum over 2048 tokens.
    """

    cycles: Annotated[int, Gt(0)] = 50
    variance_exponent: Annotated[float, Ge(0)] = 1.0
    tolerance: Annotated[float, Ge(0)] = 5e-5
    needs: ClassVar[Needs] = Needs.MEANS
    takes_scores: ClassVar[bool] = True
    group: ClassVar[ComparisonGroup | None] = None

    def select(self, layer: Layer) -> Bool[Tensor, "out in"]:
        """Return the refined mask; every row, or cell, has as many zeros as before."""
        assert layer.statistics is not None
        assert layer.scores is not None
        mean, variance = mean_and_variance(layer.statistics)
        weight, pruned = layer.weight.float(), layer.lowest_scores()
        return self.refine(weight, pruned, layer.scores, mean, variance, layer.budget.cell)

    def refine(
        self,
        weight: Float[Tensor, "out in"],
        pruned: Bool[Tensor, "out in"],
        scores: Float[Tensor, "out in"],
        mean: Float[Tensor, " in"],
        variance: Float[Tensor, " in"],
        cell: int | None = None,
    ) -> Bool[Tensor, "out in"]:
        """Return the refined mask; weights that are zero take no part.

        Args:
            weight: w, in float32.
            pruned: the mask to start from, as many zeros as which each row (or cell) keeps.
            scores: the lowest of kept weights is pruned.
            mean: E[x_j].
            variance: Var(x_j).
            cell: inputs of a row that are exchanged for each other, or None for any.
        """
        refined, contribution = pruned.clone(), weight * mean
        error = (contribution * pruned).sum(dim=1)
        sign = error.sign()[:, None]
        towards = sign * contribution
        tiny = torch.finfo(variance.dtype).tiny
        ranks = towards / variance.clamp(min=tiny).pow(self.variance_exponent)
        cycles = min(self.cycles, weight.shape[1])
        growing = ranks.masked_fill(~pruned | (towards <= 0), -torch.inf).topk(cycles, dim=1)
        # The signs of errors never change here, so that all candidates are known before the first cycle.
        candidates = scores.masked_fill(pruned | (weight == 0), torch.inf)
        shrinking = None
        if cell is None:
            shrinking = candidates.masked_fill(towards >= 0, torch.inf).topk(cycles, dim=1, largest=False)
        error = error[:, None]
        for cycle in range(cycles):
            at = slice(cycle, cycle + 1)
            grown = growing.indices[:, at]
            going = growing.values[:, at].isfinite() & (error.abs() > self.tolerance)
            if cycle % CHECKED == 0 and not going.any():
                break
            if shrinking is not None:
                lost, found = shrinking.indices[:, at], shrinking.values[:, at].isfinite()
            else:
                assert cell is not None
                lost, found = _lowest_in_cell(candidates, grown, cell)
            after = error + contribution.gather(1, lost) - contribution.gather(1, grown)
            going = going & found & (after.sign() == sign) & (after.abs() < error.abs())
            error = torch.where(going, after, error)
            refined.scatter_(1, grown, refined.gather(1, grown) & ~going)
            refined.scatter_(1, lost, refined.gather(1, lost) | going)
            candidates.scatter_(1, lost, torch.where(going, torch.inf, candidates.gather(1, lost)))
        return refined


CHECKED = 8
"""Cycles after which it is looked whether any row still goes on: a device is waited for each time."""


def _lowest_in_cell(
    candidates: Float[Tensor, "out in"], place: Int[Tensor, "out 1"], cell: int
) -> tuple[Int[Tensor, "out 1"], Bool[Tensor, "out 1"]]:
    """Return the candidate of the lowest score in the cell of `place`, and whether there is any."""
    inside = place // cell * cell + torch.arange(cell, device=place.device)
    lowest = candidates.gather(1, inside).min(dim=1, keepdim=True)
    return inside.gather(1, lowest.indices), lowest.values.isfinite()
