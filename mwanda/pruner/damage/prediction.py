"""What a pruned model is predicted to lose in each language, before it is pruned."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.stats import norm
from torch import Tensor

from mwanda.pruner.damage.curves import Damage
from mwanda.schedules.curve import DamageCurve


Values = NDArray[np.float64]

COVERAGE = 0.95
CLOSEST = 1e-4
"""Sparsity to which the largest one within a limit is found."""


@dataclass(frozen=True)
class Prediction:
    """The log-ratio of each language in nats a token, with an interval that covers what is due to the draws.

    Args:
        log_ratio: of the pruned model's loss to that of the dense one.
        low: end of the interval.
        high: likewise.
    """

    log_ratio: Float[Tensor, " L"]
    low: Float[Tensor, " L"]
    high: Float[Tensor, " L"]


@dataclass(frozen=True)
class Predictor:
    """Adds up the damage of all matrices, `D_l = Σ_m D_ml(s_m)` with `D_ml(s) = a_ml d(s)`.

    The curve d is pooled over matrices and languages. Intervals take the sum over matrices of one sequence and draw to
    be spread about the mean of its language by the same factor in all languages, as four sequences do not tell a
    language's own spread.

    Args:
        damage: as measured.
    """

    damage: Damage

    @cached_property
    def _curve(self) -> DamageCurve:
        pooled = sum(curve.mean(dim=0) for curve in self.damage.curves().values())
        assert isinstance(pooled, Tensor)
        return DamageCurve(np.array(self.damage.levels), pooled.numpy())

    @cached_property
    def _amounts(self) -> Float[Tensor, "S R M"]:
        """How often each sequence and draw saw the pooled damage in each matrix: `a_ml` before the mean."""
        damage = self.damage
        squares = damage.squares / (4 * damage.positions)
        amounts = (squares / torch.from_numpy(self._curve.damage)).mean(dim=3)
        index = {name: place for place, name in enumerate(damage.matrices)}
        shared = amounts.clone()
        for name, siblings in damage.rare:
            shared[..., index[name]] = amounts[..., [index[each] for each in siblings]].mean(dim=2)
        return shared

    def at(self, sparsities: Mapping[str, float]) -> Prediction:
        """Return what is predicted when each matrix, by its name, has a sparsity."""
        values = self._curve.at(np.array([sparsities[name] for name in self.damage.matrices]))
        return predict(self._amounts @ torch.from_numpy(values), self.damage.languages)


def predict(samples: Float[Tensor, "S R"], languages: Float[Tensor, " S"]) -> Prediction:
    """Return the mean over the samples of each language, with an interval on the scale of its logarithm.

    The coefficient of variation of one sample is that of all samples about the means of their languages.
    """
    count = int(languages.max()) + 1
    groups = [samples[languages == language].flatten().double() for language in range(count)]
    sizes = torch.tensor([len(group) for group in groups], dtype=torch.float64)
    means = torch.stack([group.mean() for group in groups])
    spread = sum(float(((group / mean) - 1).square().sum()) for group, mean in zip(groups, means, strict=True) if mean)
    freedom = max(1.0, float((sizes - 1).sum()))
    factor = (float(norm.ppf((1 + COVERAGE) / 2)) * torch.log1p(spread / freedom / sizes).sqrt()).exp()
    return Prediction(means, means / factor, means * factor)


def largest_within(loss_at: Callable[[float], float], limit: float, lowest: float, highest: float) -> float | None:
    """Return the largest sparsity at which the predicted loss, which rises with it, is at most `limit`, by bisection.

    Args:
        loss_at: gives the loss at a sparsity.
        limit: see above.
        lowest: sparsity below which nothing can be asked for; where even this loses more, the result is None.
        highest: sparsity above which nothing is looked for.
    """
    if loss_at(lowest) > limit:
        return None
    if loss_at(highest) <= limit:
        return highest
    below, above = lowest, highest
    while above - below > CLOSEST:
        middle = (below + above) / 2
        below, above = (middle, above) if loss_at(middle) <= limit else (below, middle)
    return below
