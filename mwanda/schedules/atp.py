"""ATP: sparsities in arithmetic progression, the first blocks kept most."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from mwanda.schedules.base import BlockMatrix, Level, Looks, project
from mwanda.statistics import Needs


@dataclass(frozen=True)
class ATP:
    """`s_k = S − λ + 2λ · k / (K − 1)` for `k = 0 … K − 1` (Huang et al., ICML 2025, 2502.14770, section 3).

    The paper's common difference is `β = 2λ / (K − 1)`, found there by trying values from 0.002 upwards; λ is the same
    number for a model of any depth.

    Args:
        width: λ; sparsities spread over `[S − λ, S + λ]` before the budget is met.
        level: see Schedule; with `matrix` the progression runs over the matrices in the order of the model.
    """

    width: Annotated[float, Ge(0)] = 0.15
    level: Level = "block"
    signal_fraction: ClassVar[float] = 1.0
    needs: ClassVar[Needs] = Needs.NOTHING
    looks_at: ClassVar[Looks] = "nothing"

    def signal(self, matrices: Sequence[BlockMatrix]) -> Sequence[float]:
        """Return nothing: only the position counts."""
        return ()

    def allocate(
        self, signals: Sequence[Sequence[float]], shares: Sequence[float], target: float, lower: Sequence[float]
    ) -> list[float]:
        """Return sparsities that rise by the same difference from each to the next."""
        steps = max(1, len(shares) - 1)
        progression = [target - self.width + 2 * self.width * index / steps for index in range(len(shares))]
        return project(progression, shares, target, lower)
