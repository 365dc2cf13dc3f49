"""The same sparsity in every block."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mwanda.schedules.base import BlockMatrix, Level, Looks, project
from mwanda.statistics import Needs


@dataclass(frozen=True)
class Uniform:
    """`s_k = S`, but for blocks that hold more zeros than that already."""

    level: Level = "block"
    signal_fraction: ClassVar[float] = 1.0
    needs: ClassVar[Needs] = Needs.NOTHING
    looks_at: ClassVar[Looks] = "nothing"

    def signal(self, matrices: Sequence[BlockMatrix]) -> Sequence[float]:
        """Return nothing: no block is different."""
        return ()

    def allocate(
        self, signals: Sequence[Sequence[float]], shares: Sequence[float], target: float, lower: Sequence[float]
    ) -> list[float]:
        """Return the target for every block."""
        if all(floor <= target for floor in lower):
            return [target] * len(shares)
        return project([0.0] * len(shares), shares, target, lower)
