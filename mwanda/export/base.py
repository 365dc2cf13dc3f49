"""The interface of an export."""

from pathlib import Path
from typing import Any, ClassVar, Protocol

from mwanda.models import LoadedModel


class Export(Protocol):
    """Writes something of the pruned model into the run's folder.

    Args:
        name: the file or folder that it leaves there.
    """

    name: ClassVar[str]

    def write(self, loaded: LoadedModel, results: dict[str, Any], folder: Path) -> Path:
        """Write and return the path."""
        ...
