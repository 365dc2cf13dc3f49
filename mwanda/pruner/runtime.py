"""What a pruning run is carried out with; it changes time, memory and what can be resumed, and no mask."""

from dataclasses import dataclass, field
from pathlib import Path

from mwanda.artifacts.store import ArtifactCache
from mwanda.models.weights import Resident, Weights
from mwanda.pruner.run_checkpoint import RunCheckpoint
from mwanda.system.distributed import World
from mwanda.system.progress import Progress, Silent


@dataclass(frozen=True)
class Runtime:
    """Where weights, hidden states and finished blocks are, and who takes part.

    Args:
        weights: where blocks are kept; by default the whole model is in memory.
        checkpoint: what an interrupted run has finished; None keeps none.
        world: the processes that share the calibration set.
        artifacts: what other runs have found in the same model from the same calibration set; None keeps nothing.
        scratch: where hidden states wait on disk; None for where temporary files are.
        progress: shows how far it has come.
    """

    weights: Weights = field(default_factory=Resident)
    checkpoint: RunCheckpoint | None = None
    world: World = field(default_factory=World)
    artifacts: ArtifactCache | None = None
    scratch: Path | None = None
    progress: Progress = field(default_factory=Silent)
