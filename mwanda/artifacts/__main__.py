"""`python -m mwanda.artifacts` lists what runs share, and removes what is no longer needed."""

import argparse
import math
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mwanda.artifacts.store import CORRUPT, entries, prune, store
from mwanda.system.secrets import hide_in_terminal


UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def main(arguments: Sequence[str] | None = None) -> int:
    """List artifacts, or remove some."""
    parser = argparse.ArgumentParser(
        prog="python -m mwanda.artifacts", description="What runs share: list it, or remove what is no longer needed."
    )
    parser.add_argument("--folder", type=Path, default=None, help="of the store; $MWANDA_CACHE/artifacts by default")
    commands = parser.add_subparsers(dest="command")
    remove = commands.add_parser("prune", help="remove artifacts; runs make them again when they need them")
    which = remove.add_mutually_exclusive_group(required=True)
    which.add_argument("--older-than", type=_seconds, metavar="30d", help="not used for so long (s, m, h, d, w)")
    which.add_argument("--max-size", type=_bytes, metavar="20G", help="until no more than this is left (K, M, G, T)")
    which.add_argument("--all", action="store_true")
    given = parser.parse_args(arguments)
    folder = given.folder or store()
    if given.command == "prune":
        count = prune(folder, older_than=given.older_than, max_size=given.max_size, everything=given.all)
        print(f"{count} removed, {len(entries(folder))} left in {folder}")
        return 0
    _show(folder)
    return 0


def _show(folder: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    from mwanda.system.terminal import console

    found, now = entries(folder), time.time()
    table = Table(box=None)
    for heading in ("kind", "of", "key"):
        table.add_column(heading, overflow="fold")
    for heading in ("MiB", "last used"):
        table.add_column(heading, justify="right")
    for entry in found:
        size = f"{entry.size / (1 << 20):.1f}"
        table.add_row(entry.kind, Text(entry.about), entry.index.stem[:12], size, _ago(now - entry.used))
    out = console()
    out.print(table)
    total = sum(entry.size for entry in found) / (1 << 20)
    out.print(f"{folder}: {len(found)} artifacts, {total:.1f} MiB", markup=False, highlight=False, soft_wrap=True)
    aside = list(_corrupt(folder))
    if aside:
        out.print(f"{len(aside)} corrupt files were moved aside: {aside[0]} …", markup=False, soft_wrap=True)


def _corrupt(folder: Path) -> Iterator[Path]:
    yield from folder.glob(f"*/*{CORRUPT}")


def _ago(seconds: float) -> str:
    unit = next((name for name in ("w", "d", "h", "m") if seconds >= UNITS[name]), "s")
    return f"{math.floor(max(0.0, seconds) / UNITS[unit])} {unit} ago"


def _seconds(text: str) -> float:
    return _scaled(text, UNITS, "30d")


def _bytes(text: str) -> int:
    return int(_scaled(text.upper().removesuffix("B").removesuffix("I"), SIZES, "20G"))


def _scaled(text: str, units: Mapping[str, int], example: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]?)", text.strip())
    if found is None or found[2] not in units:
        raise argparse.ArgumentTypeError(f"'{text}' is no amount, as {example} is one")
    return float(found[1]) * units[found[2]]


if __name__ == "__main__":
    hide_in_terminal()
    sys.exit(main())
