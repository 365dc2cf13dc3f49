"""Breaks runs on purpose and counts how often they come out of it as they should.

    python benchmarks/robustness.py                        everything (a quarter of an hour on two cores)
    python benchmarks/robustness.py --only kills starts    some of it
    python benchmarks/robustness.py --kills 200 --seed 1   more, and other moments

Everything is done with tiny models on the CPU, in processes that a server forks, with the moments and the damages drawn
from `--seed`. What is tried stands in `ITEMS`: functions that yield, for each try, what was done and what was wrong
with how it ended, or None; and in `OTHERS`, the tables of damages to models, texts and run folders in `tests/`. The
table goes into `docs/reliability.md`; the exit code is 1 when a try did not end well.
"""

import argparse
import importlib
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from breaking import ITEMS, OTHERS, ROOT, Item, Placed, Settings, Sound, Tries, models
from killing import DOING

from mwanda.system.files import write_text


BEGIN, END = "<!-- robustness: begin -->", "<!-- robustness: end -->"


@dataclass
class Count:
    """What has come of the tries of one kind.

    Args:
        title: what was tried.
        tried: how many.
        wrong: what did not end well.
        cells: how many were tried and how many ended well, by row and column, where tries have such.
    """

    title: str
    tried: int = 0
    wrong: list[str] = field(default_factory=list)
    cells: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

    def add(self, what: str, wrong: str | None) -> None:
        """Count one try."""
        self.tried += 1
        if wrong is not None:
            self.wrong.append(f"{what}: {wrong}")
        if isinstance(what, Placed):
            tried, well = self.cells.get((what.row, what.column), (0, 0))
            self.cells[what.row, what.column] = tried + 1, well + (wrong is None)

    def row(self) -> str:
        """Return the row of the table."""
        return f"| {self.title} | {self.tried} | {self.tried - len(self.wrong)} |"

    def table(self) -> list[str]:
        """Return the lines of a table of the cells: how many were tried, and of them ended well if not all did."""
        columns = sorted({column for _, column in self.cells})
        rows = sorted({row for row, _ in self.cells}, key=DOING.index)
        found = [f"| tried, by what the run did | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
        for row in rows:
            counts = [self.cells.get((row, column), (0, 0)) for column in columns]
            shown = [str(tried) if tried == well else f"{well} of {tried}" for tried, well in counts]
            found.append(f"| {row} | {' | '.join(shown)} |")
        return found


def others() -> Iterator[tuple[str, str | tuple[str, Item]]]:
    """Yield the items of modules in `tests/` by name, or why there are none."""
    title = "damaged models: one clear error, exit 2 and nothing left"
    try:
        yield "models", (title, models(importlib.import_module("damage").damaged_models))
    except (ImportError, AttributeError) as error:
        yield "models", f"{title}: {error}"
    for name, (module, damages, tries, title, sound) in OTHERS.items():
        try:
            found = importlib.import_module(module)
            yield name, (title, _damaged(getattr(found, damages), getattr(found, tries), sound))
        except (ImportError, AttributeError) as error:
            yield name, f"{title}: {error}"


def _damaged(damages: Mapping[str, Any], tries: Callable[..., Any], sound: Sound | None) -> Item:
    """Return the tries of all damages that another module knows; its outcomes say whether they are right."""

    def item(place: Path, settings: Settings) -> Tries:
        given = [] if sound is None else [sound(place / "sound")]
        for number, name in enumerate(damages):
            (place / str(number)).mkdir()
            outcome = tries(name, *given, place / str(number))
            yield name, None if outcome.right else f"exit code {outcome.exit_code}: {outcome.output[-300:]}"

    return item


def count(name: str, title: str, tries: Item, settings: Settings) -> Count:
    """Try all of one kind, telling the terminal what did not end well."""
    found = Count(title)
    with tempfile.TemporaryDirectory(prefix="robustness-") as place:
        for what, wrong in tries(Path(place), settings):
            found.add(what, wrong)
            if wrong is not None:
                print(f"{name}: {found.wrong[-1]}", file=sys.stderr, flush=True)
    print(f"{name}: {found.tried - len(found.wrong)} of {found.tried}", flush=True)
    return found


def text(counts: Sequence[Count], missing: Sequence[str], typed: Sequence[str]) -> str:
    """Return the table with the command that made it, and what is missing in it."""
    command = shlex.join(["python", "benchmarks/robustness.py", *typed])
    where = f"{os.cpu_count()} processors, Python {platform.python_version()}"
    lines = [BEGIN, f"`{command}`, {datetime.now(UTC):%Y-%m-%d}, {where}", ""]
    lines += ["| what | tried | ended as it should |", "|---|---|---|", *(each.row() for each in counts)]
    lines += [line for each in counts if each.cells for line in ("", *each.table())]
    lines += ["", *(f"- did not end well: {wrong}" for each in counts for wrong in each.wrong[:5])]
    lines += [f"- not tried: {each}" for each in missing]
    return "\n".join([*lines, END]).replace("\n\n\n", "\n\n")


def into(path: Path, table: str) -> None:
    """Put the table into a document, in the place of the one before."""
    before = path.read_text(encoding="utf-8") if path.is_file() else f"{BEGIN}\n{END}\n"
    head, _, rest = before.partition(BEGIN)
    write_text(path, head + table + rest.partition(END)[2])


def main() -> int:
    """Try everything that was asked for and write the table."""
    default = Settings()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=default.kills)
    parser.add_argument("--configurations", type=int, default=default.configurations)
    parser.add_argument("--rounds", type=int, default=default.rounds)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--only", nargs="+", metavar="ITEM", help="some of them; the table goes to the terminal alone")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "reliability.md")
    typed = parser.parse_args()
    settings = Settings(typed.kills, typed.configurations, typed.rounds, typed.seed)
    missing = []
    for name, found in others():
        if isinstance(found, str):
            missing.append(found)
        else:
            ITEMS[name] = found
    unknown = set(typed.only or ()) - ITEMS.keys()
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; choices: {', '.join(ITEMS)}")
    chosen = {name: found for name, found in ITEMS.items() if not typed.only or name in typed.only}
    counts = [count(name, *found, settings) for name, found in chosen.items()]
    table = text(counts, missing, sys.argv[1:])
    print(table)
    if not typed.only:
        into(typed.output, table)
    return int(any(each.wrong for each in counts))


if __name__ == "__main__":
    sys.exit(main())
