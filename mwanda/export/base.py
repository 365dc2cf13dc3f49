"""The interface of an export."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol


if TYPE_CHECKING:
    from mwanda.models import LoadedModel


MASKS = "masks.safetensors"
"""What `export=masks` leaves in the folder of a run."""

SHAPES = "shapes"
"""The entry of its metadata with `outxin` of each matrix."""


class Export(Protocol):
    """Writes something of the pruned model into the run's folder.

    Args:
        name: the file or folder that it leaves there.
    """

    name: ClassVar[str]

    def write(self, loaded: "LoadedModel", results: dict[str, Any], folder: Path) -> Path:
        """Write and return the path."""
        ...
