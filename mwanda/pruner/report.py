"""What the pruner says of what it has done."""

from dataclasses import dataclass, field
from typing import Literal

from mwanda.pruner.audit import MatrixPlan


Order = Literal["block", "arrival", "oneshot"]


@dataclass
class PruningReport:
    """What was done to each matrix, and why.

    Args:
        order: in which it was done.
        plans: what was planned and counted, a matrix each.
        sparsities: of each block.
        signals: of the schedule, a block or a matrix each.
        blocks: their names.
        pooled: matrices of experts that saw too few tokens and were given the statistics of all experts.
        seconds: spent on each stage.
        fuller_cells: of an N:M pattern, that held more zeros than it removes, and keep them.
    """

    order: Order
    plans: list[MatrixPlan]
    sparsities: list[float]
    signals: list[tuple[float, ...]]
    blocks: list[str]
    pooled: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    fuller_cells: int = 0
