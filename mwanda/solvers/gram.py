"""The Gram matrix `G = Σ_t x_t x_tᵀ` of a matrix's inputs, which is the curvature of its reconstruction error.

`‖(W − V) X‖² = Σ_rows (w − v) G (w − v)ᵀ`, so that every solver here works from G alone.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mwanda.statistics import LanguageStatistics


@dataclass
class Shared:
    """What was made last of a Gram matrix, kept for the next matrix, which often has the same inputs."""

    _gram: Float[Tensor, "in in"] | None = None
    _how: Hashable = None
    _made: Tensor | None = None

    def of(self, gram: Float[Tensor, "in in"], how: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """Return what `make` makes of `gram`; `how` is all else that this depends on."""
        if self._made is None or how != self._how or not _same(gram, self._gram):
            self._gram = self._made = None  # before the next one is made: both would be in memory
            self._gram, self._how, self._made = gram, how, make()
        return self._made


def _same(one: Tensor, other: Tensor | None) -> bool:
    return one is other or (other is not None and one.device == other.device and one.equal(other))


def gram_of(statistics: LanguageStatistics | None) -> Float[Tensor, "in in"]:
    """Return the Gram matrix of the calibration inputs."""
    assert statistics is not None, "a solver that works from second moments is given statistics"
    assert statistics.second_moment is not None, "needs = Needs.SECOND_MOMENTS"
    return statistics.second_moment


def regularised(gram: Float[Tensor, "in in"], shrinkage: float, damping: float) -> Float[Tensor, "in in"]:
    """Return `(1 − α) G + α diag(G) + λ · mean(diag G) · I`, in the precision of `gram`.

    Shrinkage towards the diagonal (after Ledoit & Wolf 2004, with the diagonal as the target) trusts the correlations
    of the calibration text less, and leaves every input its own energy; α = 1 is Wanda's diagonal Hessian. Damping is
    SparseGPT's (Frantar & Alistarh, ICML 2023, section 3).

    Args:
        gram: G.
        shrinkage: α, in [0, 1].
        damping: λ, at least 0.
    """
    diagonal = gram.diagonal()
    result = gram * (1 - shrinkage) if shrinkage > 0 else gram.clone()
    result.diagonal().copy_(diagonal + damping * diagonal.mean() if damping > 0 else diagonal)
    return result


def with_active_inputs(gram: Float[Tensor, "in in"], dead: Bool[Tensor, " in"]) -> Float[Tensor, "in in"]:
    """Return G with one more on the diagonal of each input that is never active, so that it can be inverted."""
    result = gram.clone()
    result.diagonal().add_(dead.to(gram))
    return result


def cross_moment_of(statistics: LanguageStatistics | None) -> Float[Tensor, "in in"]:
    """Return `Σ_t x̃_t x_tᵀ`, with x̃ what the dense model has in the place of the input x."""
    assert statistics is not None, "a solver that works from second moments is given statistics"
    assert statistics.cross_moment is not None, "needs = Needs.CROSS_MOMENTS"
    return statistics.cross_moment


def regularised_cross(
    cross: Float[Tensor, "in in"], gram: Float[Tensor, "in in"], shrinkage: float, damping: float
) -> Float[Tensor, "in in"]:
    """Return `(1 − α) C + α diag(G) + λ · mean(diag G) · I`, which is `regularised(G)` where the inputs are the same.

    With it, `W̃ = W C_r G_r⁻¹` minimises `‖W X̃ − V X‖²` plus what regularises, which draws V to W: that error is
    `(W̃ − V) G_r (W̃ − V)ᵀ` up to a constant, so that matching the dense model's outputs is solving for W̃ in W's place.
    """
    diagonal = gram.diagonal()
    return (1 - shrinkage) * cross + torch.diag(shrinkage * diagonal + damping * diagonal.mean())


def squared_error(
    before: Float[Tensor, "out in"], after: Float[Tensor, "out in"], gram: Float[Tensor, "in in"]
) -> Float[Tensor, " out"]:
    """Return `‖(w − v) X‖²` of each output, in float64."""
    difference = before.double() - after.double()
    return ((difference @ gram.double()) * difference).sum(dim=1)
