"""OWL and CWL together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from mwanda.schedules.base import SIGNAL_FRACTION, BlockMatrix, Level, Looks, SignalFraction, project, spread
from mwanda.schedules.cwl import CWL
from mwanda.schedules.owl import OWL
from mwanda.statistics import Needs


@dataclass(frozen=True)
class OWLCWL:
    """The weighted sum of both schedules' spreads, each over its own full range.

    Args:
        outlier_threshold: M of OWL.
        protect: as in CWL.
        width: λ; the spread that each schedule alone would have.
        cwl_weight: the part of CWL in the sum, between 0 (OWL alone) and 1 (CWL alone).
        level: see Schedule.
        signal_fraction: see Schedule.
    """

    outlier_threshold: Annotated[float, Gt(0)] = 5.0
    protect: Literal["shared", "specific"] = "shared"
    width: Annotated[float, Ge(0)] = 0.08
    cwl_weight: Annotated[float, Ge(0), Le(1)] = 0.5
    level: Level = "block"
    signal_fraction: SignalFraction = SIGNAL_FRACTION
    needs: ClassVar[Needs] = Needs.NORMS
    looks_at: ClassVar[Looks] = "inputs"

    def signal(self, matrices: Sequence[BlockMatrix]) -> Sequence[float]:
        """Return OWL's signal and CWL's."""
        owl, cwl = OWL(self.outlier_threshold), CWL(self.protect)
        return (*owl.signal(matrices), *cwl.signal(matrices))

    def allocate(
        self, signals: Sequence[Sequence[float]], shares: Sequence[float], target: float, lower: Sequence[float]
    ) -> list[float]:
        """Return sparsities that fall with both signals."""
        owl, cwl = (spread(column, self.width) for column in zip(*signals, strict=True))
        mixed = [(1 - self.cwl_weight) * a + self.cwl_weight * b for a, b in zip(owl, cwl, strict=True)]
        return project(mixed, shares, target, lower)
