"""Divides calibration sequences into the batches of one process."""

import torch

from mwanda.calibration import Batch, CalibrationSet
from mwanda.errors import CalibrationError
from mwanda.system.distributed import World


def sequences_per_batch(chosen: CalibrationSet, whole_length: int, wanted: int, world: World) -> int:
    """Return how many sequences a batch holds: as many tokens as `wanted` sequences of `whole_length` tokens.

    The batches are those of one process where there are enough sequences, so that their numbers are too.

    Raises:
        CalibrationError: there are fewer sequences than processes.
    """
    if chosen.count < world.size:
        # A process without a batch would visit no block, and the others would wait for its statistics for ever.
        raise CalibrationError(
            f"{world.size} processes share {chosen.count} calibration sequences; start no more than those"
        )
    return min(wanted * whole_length // chosen.length, max(1, chosen.count // world.size))


def batches_of(chosen: CalibrationSet, size: int, world: World, device: torch.device) -> list[Batch]:
    """Return every N-th batch, where N is the number of processes."""
    return world.shard(chosen.batches(size, device))
