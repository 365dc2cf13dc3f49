"""The artifact cache: calibration sequences, statistics, schedule signals and dense evaluations that runs share.

    python -m mwanda.artifacts                         list, the most recently used first
    python -m mwanda.artifacts prune --older-than 30d  remove what has not been used for so long
    python -m mwanda.artifacts prune --max-size 20G    remove what was used longest ago, until no more is left
    python -m mwanda.artifacts prune --all

An artifact is found by a digest of all that determines it, model files and software included. Its content lies in a
file that is named by the SHA-256 of what it holds (`data/<sha256>.safetensors`); a small file named by the key says
which (`<kind>/<key>.json`). Both are written under a temporary name and renamed, the content first. So a reader meets
a whole artifact or none, also on a file system of several machines and without any lock: writers of the same artifact
write the same content, and the last one's index stays. The checksum is verified at every reading; what does not fit it
is reported, moved aside (`*.corrupt`) and made again. `artifacts=false` neither reads nor writes any.
"""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mwanda.system.cache import cache_folder
from mwanda.system.content import sha256_of
from mwanda.system.environment import arithmetic
from mwanda.system.files import atomic, read_json, write_json
from mwanda.system.ownership import ABANDONED, remove_unfinished


if TYPE_CHECKING:
    from torch import Tensor


SCHEMA = "mwanda.artifact/1"

DATA = "data"

CORRUPT = ".corrupt"

KEY, CHECKSUM = "[0-9a-f]{32}", "[0-9a-f]{64}"

OWN = rf"(?:{KEY}\.json|{CHECKSUM}\.safetensors)(?:\.\d+{re.escape(CORRUPT)})?"
"""Names of the files of a store: all that is ever removed from it."""

ROOMS = (
    "calibration",
    "corpora",
    "criteria",
    "evaluation",
    "kernels",
    "models",
    "patterns",
    "pruner",
    "schedules",
    "solvers",
    "statistics",
    "system",
)
"""The code that artifacts depend on: when it changes they are made anew."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Artifact:
    """One cached result of a computation: tensors, and metadata that JSON can hold (with NaN and infinity)."""

    tensors: "Mapping[str, Tensor]"
    metadata: Any


@dataclass
class ArtifactCache:
    """The artifact cache as one run sees it.

    Args:
        key: what all of them depend on.
        about: what people read in the list.
        folder: of the store; None keeps and finds nothing.
        reused: kind and key of what was found.
        made: kind and key of what was kept.
    """

    key: Mapping[str, Any]
    about: str
    folder: Path | None
    reused: list[dict[str, str]] = field(default_factory=list)
    made: list[dict[str, str]] = field(default_factory=list)

    def find(self, kind: str, key: Mapping[str, Any]) -> Artifact | None:
        """Return an artifact, if there is a sound one."""
        if self.folder is None:
            return None
        whole = {**self.key, **key}
        found = _read(self.folder, kind, whole)
        if found is not None:
            self.reused.append({"kind": kind, "key": digest(whole)})
            logger.info("%s taken from the artifacts (%s)", kind, digest(whole)[:12])
        return found

    def keep(self, kind: str, key: Mapping[str, Any], tensors: "Mapping[str, Tensor]", metadata: Any = None) -> None:
        """Keep an artifact; a store that cannot be written to costs a warning."""
        if self.folder is None:
            return
        whole = {**self.key, **key}
        try:
            _write(self.folder, kind, whole, self.about, tensors, metadata)
        except OSError as error:
            logger.warning("%s is not kept for other runs: %s (artifacts=false leaves the store out)", kind, error)
            return
        self.made.append({"kind": kind, "key": digest(whole)})


def store() -> Path:
    """Return where artifacts are: `artifacts` in the cache folder."""
    return cache_folder() / "artifacts"


def digest(key: Mapping[str, Any]) -> str:
    """Return the digest of a key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:32]


def software() -> dict[str, str]:
    """Return what of the software, and of this machine's arithmetic, numbers depend on to the last bit."""
    import numpy
    import scipy
    import torch
    import transformers

    versions = {module.__name__: str(module.__version__) for module in (numpy, scipy, torch, transformers)}
    return {**versions, "arithmetic": arithmetic(), "code": code_digest()}


def code_digest(folder: Path = Path(__file__).parents[1], rooms: Sequence[str] = ROOMS) -> str:
    """Return a digest of this project's own code that artifacts depend on."""
    made = hashlib.sha256()
    for room in rooms:
        place = folder / room
        files = [place] if place.is_file() else sorted({*place.rglob("*.py"), *place.rglob("*.yaml")})
        for file in files:
            made.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes())
    return made.hexdigest()[:16]


def text_digest(text: Mapping[str, Sequence[Any]]) -> str:
    """Return a digest of texts (or tokens) by language, in their order."""
    made = hashlib.sha256()
    for code, parts in text.items():
        made.update(f"{code}:{len(parts)}\n".encode())
        for part in parts:
            made.update(f"{part}\0".encode())
    return made.hexdigest()[:32]


def _read(folder: Path, kind: str, key: Mapping[str, Any]) -> Artifact | None:
    from safetensors import SafetensorError, safe_open

    index = folder / kind / f"{digest(key)}.json"
    if not index.is_file():
        return None
    try:
        entry = read_json(index)
        data = _data(folder, entry["data"])
        if entry["schema"] != SCHEMA or digest(entry["key"]) != digest(key):
            raise ValueError("it is of something else")
    except (ValueError, KeyError, TypeError) as error:
        _move_aside(index, error)
        return None
    except OSError:  # it was removed meanwhile
        return None
    try:
        if sha256_of(data) != entry["data"]:
            raise ValueError("its checksum is another")
        with safe_open(data, framework="pt") as file:
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            metadata = json.loads((file.metadata() or {})["metadata"])
    except FileNotFoundError:
        index.unlink(missing_ok=True)
        return None
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        _move_aside(data, error)
        index.unlink(missing_ok=True)
        return None
    with suppress(OSError):
        os.utime(index)  # when it was last used
    return Artifact(tensors, metadata)


def _write(
    folder: Path, kind: str, key: Mapping[str, Any], about: str, tensors: "Mapping[str, Tensor]", metadata: Any
) -> None:
    from safetensors.torch import save_file

    apart = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic(folder / DATA / "new", lambda made: f"{checksum}.safetensors") as temporary:
        save_file(apart, temporary, {"metadata": json.dumps(metadata)})
        checksum, size = sha256_of(temporary), temporary.stat().st_size
    write_json(
        folder / kind / f"{digest(key)}.json",
        {
            "schema": SCHEMA,
            "kind": kind,
            "about": about,
            "key": key,
            "data": checksum,
            "bytes": size,
            "made": time.time(),
        },
    )


def _data(folder: Path, checksum: object) -> Path:
    """Return where content lies.

    Raises:
        ValueError: it is named otherwise, perhaps by a place outside the store.
    """
    if not isinstance(checksum, str) or not re.fullmatch(CHECKSUM, checksum):
        raise ValueError(f"its content is named {checksum!r}, which is no checksum")
    return folder / DATA / f"{checksum}.safetensors"


def _move_aside(file: Path, error: Exception) -> None:
    aside = file.with_name(f"{file.name}.{time.time_ns()}{CORRUPT}")
    with suppress(OSError):  # another process was quicker
        os.replace(file, aside)
        logger.warning("%s is corrupt (%s); it is now %s, and is made again", file, error, aside.name)


@dataclass(frozen=True)
class Entry:
    """An artifact in the list.

    Args:
        index: the file that names it.
        kind: what it is.
        about: what it is of.
        data: its content.
        size: in bytes.
        used: when it was last read, or made.
    """

    index: Path
    kind: str
    about: str
    data: Path
    size: int
    used: float


def entries(folder: Path) -> list[Entry]:
    """Return all artifacts, the most recently used first."""
    found = []
    for index in folder.glob("*/*.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = read_json(index)
            if not re.fullmatch(KEY, index.stem) or content["schema"] != SCHEMA:
                continue
            data, used = _data(folder, content["data"]), index.stat().st_mtime
            kind, about = str(content["kind"]), str(content["about"])
            found.append(Entry(index, kind, about, data, int(content["bytes"]), used))
    return sorted(found, key=lambda each: each.used, reverse=True)


def prune(
    folder: Path, *, older_than: float | None = None, max_size: int | None = None, everything: bool = False
) -> int:
    """Remove artifacts, those used longest ago first, and what is left of corrupt and abandoned ones.

    Args:
        folder: of the store.
        older_than: seconds since the last use.
        max_size: bytes that may stay.
        everything: whether all are removed.

    Returns:
        How many were removed.
    """
    now, kept = time.time(), 0
    needed: set[Path] = set()
    removed: list[Path] = []
    for entry in entries(folder):
        old = older_than is not None and now - entry.used > older_than
        big = max_size is not None and kept + entry.size > max_size
        if everything or old or big:
            entry.index.unlink(missing_ok=True)
            removed.append(entry.data)
        else:
            kept += entry.size
            needed.add(entry.data)
    # Content that no index names yet may be that of an artifact which is just being written.
    for file in {*folder.glob(f"{DATA}/*"), *folder.glob(f"*/*{CORRUPT}")} - needed:
        with suppress(OSError):
            ours = file.is_file() and not file.is_symlink() and re.fullmatch(OWN, file.name)
            if ours and (everything or file in removed or now - file.stat().st_mtime > ABANDONED):
                file.unlink()
    for place in folder.glob("*/"):
        remove_unfinished(place, 0.0 if everything else ABANDONED)
    return len(removed)
