"""Spares Hydra reading the same YAML files again for each job of a sweep, which takes a fifth of the composition."""

from copy import deepcopy
from functools import lru_cache, partial
from pathlib import Path
from typing import Any


Stamp = tuple[int, int, int] | None


def remember() -> None:
    """Let the Hydra that has just been initialised read a file once in this process, and again when it has changed."""
    from hydra.core.global_hydra import GlobalHydra

    source: Any  # whose method is replaced
    for source in GlobalHydra.instance().config_loader().get_sources():
        if source.scheme() in ("file", "pkg"):
            source.load_config = partial(_load, type(source), source.provider, source.path)  # type: ignore[method-assign]


def _load(kind: Any, provider: str, folder: str, config_path: str) -> Any:
    """Return a file of a folder, or of one of Hydra's own packages, as an object that Hydra may change."""
    stamp = _stamp(Path(folder, f"{config_path.removesuffix('.yaml')}.yaml")) if kind.scheme() == "file" else None
    return deepcopy(_read(kind, provider, folder, config_path, stamp))


def _stamp(path: Path) -> Stamp:
    """Return what changes when a file is written; None where there is none, which Hydra says better."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=1024)
def _read(kind: Any, provider: str, folder: str, name: str, stamp: Stamp) -> Any:
    """Return what Hydra makes of a file, which changes when its stamp does."""
    return kind(provider, f"{kind.scheme()}://{folder}").load_config(name)
