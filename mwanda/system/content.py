"""Content digests: a folder that has been moved is the same, and one that has been edited is not."""

import hashlib
import json
import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from mwanda.errors import InputError
from mwanda.system.cache import cache_folder
from mwanda.system.files import write_json


SMALL = 1 << 20
"""Bytes below which reading a file again costs no more than looking its digest up."""


def folder_digest(folder: Path, suffixes: tuple[str, ...] = ()) -> str:
    """Return a digest of names and contents of the files in a folder; hidden ones and subfolders do not count.

    Args:
        folder: expanded and existing.
        suffixes: only files with one of these count; all when there are none.

    Raises:
        InputError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file() and not file.name.startswith(".") and (not suffixes or file.suffix in suffixes):
            try:
                content = file_digest(file)
            except OSError as error:
                raise InputError(f"{file} cannot be read ({error.strerror or error})") from None
            digest.update(os.fsencode(file.name) + f"\0{content}\n".encode())
    return digest.hexdigest()


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file; that of a large one is remembered for as long as size and times do not change."""
    resolved, found = file.resolve(), file.stat()
    if found.st_size < SMALL:
        return sha256_of(resolved)
    return remembered_digest(resolved, (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino))


@lru_cache(maxsize=4096)
def remembered_digest(file: Path, state: tuple[int, ...]) -> str:
    """Return the SHA-256 of a file as a note in the cache has it for this state, or else of what is read."""
    note = cache_folder() / "digests" / f"{hashlib.sha256(str(file).encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["state"] == list(state):
            return str(known["sha256"])
    digest = sha256_of(file)
    with suppress(OSError):  # a cache that cannot be written to costs time, not the run
        write_json(note, {"file": str(file), "state": list(state), "sha256": digest})
    return digest


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file, which is read."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
