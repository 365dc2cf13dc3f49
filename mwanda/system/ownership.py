"""Which files and folders this project has made itself: nothing else is ever removed or replaced.

It knows them by names that nobody else gives, or by a list that it leaves in a folder of its own; and names that it
reads from a file are taken only where they stay in the folder of that file.
"""

import json
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from mwanda.errors import InputError


UNFINISHED = ".mwanda-unfinished"
"""What the names of files and folders end with that are being made, and that a killed process leaves."""

ABANDONED = 24 * 3600.0
"""Seconds after which what is unfinished in a folder of several processes is no longer being made."""

MADE = ".mwanda-made.json"
"""The list of what this project has put into a folder."""

SCHEMA = "mwanda.made/1"


class ForeignError(InputError):
    """A place holds what this project has not made."""


def plain_name(name: object) -> str:
    """Return a name that was read from a file, if it names something in the same folder and nothing else.

    Raises:
        ValueError: it does not.
    """
    if not isinstance(name, str) or not name or name in (".", "..") or re.search(r"[/\\\0]", name):
        raise ValueError(f"{name!r} is no plain file name")
    return name


def remove_unfinished(folder: Path, older_than: float = 0.0) -> None:
    """Remove what killed processes have left half made in a folder.

    Args:
        folder: where to look, and not below it.
        older_than: seconds; 0 where no other process can be at work.
    """
    for left in folder.glob(f".*{UNFINISHED}"):
        with suppress(OSError):
            if time.time() - left.lstat().st_mtime >= older_than:
                _remove(left)


def sign(folder: Path) -> None:
    """Leave a list of all that is in a folder which this project has just made."""
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    (folder / MADE).write_text(json.dumps({"schema": SCHEMA, "files": files}, indent=1) + "\n", encoding="utf-8")


def foreign(folder: Path) -> list[str]:
    """Return what a folder holds that this project has not signed; all of it where there is no signature."""
    listed: set[str] = set()
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads((folder / MADE).read_text(encoding="utf-8"))
        listed = {MADE, *map(str, found["files"])} if found["schema"] == SCHEMA else set()
    present = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(name for name in present if name not in listed)


def check_replaceable(path: Path) -> None:
    """Refuse to replace a folder that this project has not made, or that holds something else besides.

    Raises:
        ForeignError: it is one; the message names what.
    """
    if path.is_symlink() or not path.is_dir():
        return
    others = foreign(path)
    if others:
        raise ForeignError(f"{path}: holds {named(others)}, which no run has made; move it, or choose another folder")


def remove_own(folder: Path, patterns: Iterable[str]) -> None:
    """Remove from a folder what has names of ours, then the folder when nothing else is in it.

    Args:
        folder: where to look, and not below it; one that is a link is left alone.
        patterns: regular expressions of whole names.
    """
    whole = re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
    if folder.is_symlink() or not folder.is_dir():
        return
    for each in folder.iterdir():
        if whole.fullmatch(each.name) or each.name.endswith(UNFINISHED):
            with suppress(OSError):
                _remove(each)
    with suppress(OSError):
        folder.rmdir()


def named(names: Sequence[str], shown: int = 3) -> str:
    """Return the first of some names, and how many there are besides."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
