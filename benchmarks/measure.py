"""Times several ways in turn, measures peak memory in fresh processes, and shows both in a table (Linux)."""

import multiprocessing
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, TypeVar

from mwanda.system.environment import environment
from mwanda.system.files import write_json, write_text


SCHEMA = "mwanda.benchmark/1"
MEGABYTE = 2**20

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Memory:
    """Resident bytes before and at the peak of something."""

    before: int
    peak: int


@dataclass(frozen=True)
class Row:
    """One way with its seconds in each round, those of what it is compared with, and its memory if measured."""

    label: str
    seconds: list[float]
    base: list[float]
    memory: Memory | None = None


@dataclass
class Table:
    """Rows to compare.

    Args:
        title: what was measured.
        base: what the ratios relate to.
        faster: ratios say how many times faster than the base, not how many times its time.
        rows: in the order to show.
    """

    title: str
    base: str
    faster: bool = False
    rows: list[Row] = field(default_factory=list)

    def ratios(self, row: Row) -> list[float]:
        """Return a row's ratio to the base in each round."""
        ratios = [own / base for own, base in zip(row.seconds, row.base, strict=True)]
        return [1 / ratio for ratio in ratios] if self.faster else ratios

    def markdown(self) -> str:
        """Return the table: medians, with the lowest and highest value in brackets."""
        relation = f"times faster than {self.base}" if self.faster else f"ratio to {self.base}"
        heads = ["", "seconds", relation]
        measured = any(row.memory for row in self.rows)
        heads += ["peak memory, MB", "of it before, MB"] if measured else []
        lines = [heads, ["---"] + ["--:"] * (len(heads) - 1)]
        for row in self.rows:
            cells = [row.label, _spread(row.seconds, 4), _spread(self.ratios(row), 2)]
            if row.memory:
                cells += [f"{value / MEGABYTE:.0f}" for value in (row.memory.peak, row.memory.before)]
            elif measured:
                cells += ["", ""]
            lines.append(cells)
        return "\n".join([f"### {self.title}", "", *(f"| {' | '.join(cells)} |" for cells in lines)])

    def content(self) -> dict[str, Any]:
        """Return everything for a JSON file."""
        rows = [
            {
                "label": row.label,
                "seconds": row.seconds,
                "ratios": self.ratios(row),
                "median_seconds": median(row.seconds),
                "median_ratio": median(self.ratios(row)),
                "peak_bytes": row.memory.peak if row.memory else None,
                "bytes_before": row.memory.before if row.memory else None,
            }
            for row in self.rows
        ]
        return {"title": self.title, "base": self.base, "times_faster": self.faster, "rows": rows}


def timed(run: Callable[[], object], clock: Callable[[], float] = perf_counter) -> Callable[[], float]:
    """Return a function that runs `run` and returns the seconds that it took by a clock."""

    def measure() -> float:
        start = clock()
        run()
        return clock() - start

    return measure


def interleaved(
    ways: Mapping[str, Callable[[], float]], rounds: int, between: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
    """Return the seconds of each way in each round, all ways in turn; a round before the first warms up.

    Each round starts with another way, so that none always follows the same one. `between` is called after each.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(-1, rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            taken = ways[name]()
            between()
            if turn >= 0:
                seconds[name].append(taken)
    return seconds


def in_fresh_process(function: Callable[..., Answer], *arguments: object) -> Answer:
    """Call a module-level function in a process of its own, as peak memory never falls within one."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def memory_of(run: Callable[[], object]) -> Memory:
    """Return what this process holds before `run` and at its peak."""
    # The kernel's own peak of this address space: `getrusage` would also count the process that started this one.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading the model
    before = _resident("VmRSS")
    run()
    return Memory(before, _resident("VmHWM"))


def machine(threads: int) -> dict[str, Any]:
    """Return what the times depend on."""
    models = {line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")}
    processor = ", ".join(sorted(models)) or platform.processor()
    load = os.getloadavg()[0]
    return {"processor": processor, "cores": os.cpu_count(), "threads": threads, "load_average_before": load}


def write(folder: Path, name: str, metadata: Mapping[str, Any], tables: Sequence[Table]) -> None:
    """Write `name.md` and `name.json`, each whole or not at all."""
    told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in metadata.items())
    parts = [f"## {name}", told, *(table.markdown() for table in tables)]
    write_text(folder / f"{name}.md", "\n\n".join(parts) + "\n")
    about = {"schema": SCHEMA, "name": name, "metadata": dict(metadata), "environment": environment("cpu")}
    write_json(folder / f"{name}.json", {**about, "tables": [table.content() for table in tables]})


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} – {max(values):.{digits}f})"


def _resident(what: str) -> int:
    line = next(line for line in _lines("/proc/self/status") if line.startswith(what))
    return int(line.split()[1]) * 1024


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.is_file() else []
