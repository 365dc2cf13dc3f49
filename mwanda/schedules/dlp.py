"""DLP: blocks whose typical weight matters least keep most, as what matters in them lies in few weights."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor

from mwanda.schedules.base import SIGNAL_FRACTION, BlockMatrix, Level, Looks, SignalFraction, project, spread
from mwanda.schedules.owl import wanda_scores
from mwanda.statistics import Needs


HALF = 16
"""Bits of a float32 that are decided in each of two passes."""

OTHERS = 1 << HALF
"""The number after those that have as many bits: what is not to be counted."""


@dataclass(frozen=True)
class DLP:
    """Dynamic layerwise pruning (Chen et al., ICML 2025, 2505.23807): importance `1 − m_k / Σ_k m_k`.

    `m_k` is the median of the Wanda scores of a block.

    Args:
        width: α; sparsities spread over `[S − α, S + α]` before the budget is met.
        level: see Schedule.
        signal_fraction: see Schedule.
    """

    width: Annotated[float, Ge(0)] = 0.15
    level: Level = "block"
    signal_fraction: SignalFraction = SIGNAL_FRACTION
    needs: ClassVar[Needs] = Needs.NORMS
    looks_at: ClassVar[Looks] = "inputs"

    def signal(self, matrices: Sequence[BlockMatrix]) -> Sequence[float]:
        """Return `−m_k`, which orders blocks as their importance does."""
        return (-median(partial(wanda_scores, matrices)),)

    def allocate(
        self, signals: Sequence[Sequence[float]], shares: Sequence[float], target: float, lower: Sequence[float]
    ) -> list[float]:
        """Return sparsities that fall with the importance.

        They are spread over the range of the importance, so that what makes it of the signal (division by a common sum,
        addition of one) changes nothing.
        """
        return project(spread([signal for (signal,) in signals], self.width), shares, target, lower)


def median(scores: Callable[[], Iterable[Float[Tensor, "rows in"]]]) -> float:
    """Return the lower median of all scores, exactly, without ever holding more of them than a few rows.

    The bits of a non-negative float32, read as a whole number, are in the order of its value: the first pass counts
    their upper half, the second the lower half of those that share the median's upper half.

    Args:
        scores: makes non-negative scores in float32, a few rows at a time; called twice.
    """
    first = _histogram(scores, lambda bits: bits >> HALF)
    rank = (int(first.sum()) - 1) // 2
    upper, before = _bin_of(first, rank)
    # Those of another upper half go to a bin of their own: a device would be waited for to leave them out.
    second = _histogram(scores, lambda bits: torch.where(bits >> HALF == upper, bits & OTHERS - 1, OTHERS))
    lower, _ = _bin_of(second, rank - before)
    return float(torch.tensor(upper << HALF | lower, dtype=torch.int32).view(torch.float32))


def _histogram(scores: Callable[[], Iterable[Tensor]], keys: Callable[[Tensor], Tensor]) -> Tensor:
    """Return, on the CPU, how many scores there are of each key of `HALF` bits."""
    counts = [torch.bincount(keys(part.flatten().view(torch.int32)), minlength=OTHERS + 1) for part in scores()]
    return torch.stack(counts).sum(dim=0)[:OTHERS].cpu()


def _bin_of(counts: Tensor, rank: int) -> tuple[int, int]:
    """Return the bin that holds the value of this rank, and how many values lie in the bins before it."""
    up_to = counts.cumsum(0)
    found = int(torch.searchsorted(up_to, rank, right=True))
    return found, int(up_to[found] - counts[found])
