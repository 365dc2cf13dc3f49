"""The cache folder, for files that are costly to make again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return `$MWANDA_CACHE`, or `mwanda` in the user's cache folder."""
    chosen = os.environ.get("MWANDA_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(chosen) if chosen else Path(base) / "mwanda"
