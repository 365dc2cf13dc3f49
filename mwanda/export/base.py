"""What an export is, and how a folder or file comes into being whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Callable
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


def write_atomically(target: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a file or folder under a temporary name beside `target`, then rename it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        made = Path(temporary) / target.name
        write(made)
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(made, target)
