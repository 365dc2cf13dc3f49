"""ADMM: weights and mask found together by the alternating direction method of multipliers."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float
from torch import Tensor

from mwanda.patterns.base import ComparisonGroup
from mwanda.solvers.base import Layer, Match, prune_lowest, without_further_zeros
from mwanda.solvers.gram import cross_moment_of, gram_of, regularised, regularised_cross, with_active_inputs
from mwanda.statistics import Needs


@dataclass(frozen=True)
class ADMM:
    """Minimises `‖(W − X) inputs‖²` over weights X of the pattern (Boža, arXiv 2401.02938).

    Inputs are scaled to unit norm, so that G has a unit diagonal. Each round takes

        Z = X + U where kept, 0 where pruned;   U ← U + X − Z;   X = (W G + ρ (Z − U)) (G + ρ I)⁻¹

    from X = W and U = 0; the result is Z. Where it no longer changes, (X − W) G is zero at every kept weight: X is the
    masked least-squares solution. One inverse serves all rounds.

    Args:
        rounds: in all.
        mask: `gradual`: the smallest |X + U| of each row (or N:M cell) are pruned, more of them from round to round;
            or `scores`: the mask of the criterion's scores, to which weights are only adjusted.
        mask_rounds: rounds over which a gradual mask grows to its end: in round t to the share `1 − (1 − t/T)³`.
        penalty: ρ, relative to the unit diagonal.
        shrinkage: α of `regularised`.
        damping: λ of `regularised`, relative to the unit diagonal.
        match: whose outputs the adjusted weights are fitted to.
    """

    rounds: Annotated[int, Gt(0)] = 20
    mask: Literal["gradual", "scores"] = "gradual"
    mask_rounds: Annotated[int, Gt(0)] = 15
    penalty: Annotated[float, Gt(0)] = 1.0
    shrinkage: Annotated[float, Ge(0), Le(1)] = 0.3
    damping: Annotated[float, Ge(0)] = 0.0
    match: Match = "layer"

    @property
    def needs(self) -> Needs:
        """Second moments, also those with the dense model's inputs when its outputs are matched."""
        return Needs.CROSS_MOMENTS if self.match == "dense" else Needs.SECOND_MOMENTS

    @property
    def takes_scores(self) -> bool:
        """Whether the mask is that of a criterion."""
        return self.mask == "scores"

    @property
    def group(self) -> ComparisonGroup | None:
        """The rows, or with `mask=scores` what the criterion compares."""
        return None if self.takes_scores else "row"

    def solve(self, layer: Layer) -> Float[Tensor, "out in"]:
        """Return the adjusted weights in float32."""
        gram, zeros = gram_of(layer.statistics), layer.weight == 0
        norms = gram.diagonal().sqrt()
        silent = norms == 0
        norms = torch.where(silent, 1, norms)
        unit = with_active_inputs(gram / norms / norms[:, None], silent)
        curvature = regularised(unit, self.shrinkage, self.damping)
        weight = layer.weight.float() * norms
        aim = weight @ (curvature if self.match == "layer" else self._cross(layer, unit, norms, silent))
        inverse = layer.shared.of(gram, self, lambda: _inverse(curvature, self.penalty))
        multiplier, current = torch.zeros_like(weight), weight
        pruned = layer.lowest_scores() if self.takes_scores else zeros
        for number in range(self.rounds):
            proposed = current + multiplier
            if not self.takes_scores and number < self.mask_rounds:
                pruned = self._mask(proposed, zeros, silent, layer, number)
            kept = proposed.masked_fill(pruned, 0)
            multiplier = proposed - kept  # U + X − Z
            current = (aim + self.penalty * (kept - multiplier)) @ inverse
        result = (current + multiplier).masked_fill_(pruned, 0) / norms
        return without_further_zeros(result, pruned)

    def _cross(
        self, layer: Layer, unit: Float[Tensor, "in in"], norms: Float[Tensor, " in"], silent: Bool[Tensor, " in"]
    ) -> Float[Tensor, "in in"]:
        """Return the regularised moments of dense with pruned inputs, both scaled by the norms of the pruned ones."""
        cross = with_active_inputs(cross_moment_of(layer.statistics) / norms / norms[:, None], silent)
        return regularised_cross(cross, unit, self.shrinkage, self.damping)

    def _mask(
        self,
        proposed: Float[Tensor, "out in"],
        zeros: Bool[Tensor, "out in"],
        silent: Bool[Tensor, " in"],
        layer: Layer,
        number: int,
    ) -> Bool[Tensor, "out in"]:
        """Return the mask of one round; the last of them prunes all that is to be pruned."""
        last = min(self.mask_rounds, self.rounds)
        share = 1 - (1 - (number + 1) / last) ** 3
        counts = layer.budget.counts
        some = round(counts * share) if isinstance(counts, int) else (counts * share).round().long()
        return prune_lowest(proposed.abs().masked_fill(silent, 0), zeros, layer.budget, some)


def _inverse(curvature: Float[Tensor, "in in"], penalty: float) -> Float[Tensor, "in in"]:
    """Return `(G + ρ I)⁻¹`, made in float64."""
    shifted = curvature.double()
    shifted.diagonal().add_(penalty)
    inverse: Tensor = torch.cholesky_inverse(torch.linalg.cholesky(shifted))
    return inverse.float()
