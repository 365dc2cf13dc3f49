"""Finds the records of runs below folders, finished or not."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mwanda.comparison.files import damaged_files
from mwanda.comparison.statistics import Change, changes
from mwanda.config.identity import NOT_SEMANTIC, NOT_SEMANTIC_WITHIN
from mwanda.config.schema import ADDED, GROUPS, WEIGHTING
from mwanda.errors import ConfigurationError, RecordError
from mwanda.job import status
from mwanda.job.reading import FAMILY, checked, read_json, read_yaml
from mwanda.job.results import RESULTS, as_today


CONFIGURATION = "config.yaml"
UNREADABLE = "unreadable"
Settings = dict[str, str]

COMPARED = tuple(group for group in ("langs", *GROUPS) if group not in (*NOT_SEMANTIC, "inside"))
"""Groups of the configuration that can change a number of the tables; `inside` only looks."""

TELLS_NOTHING_APART = {"_target_", "seed", "resamples", "device"}
"""Keys that may change a number, and make no other configuration: seeds are repetitions, resamples and devices move the
last digits, and the class of a choice is known by its name."""

OF_THE_METHOD = tuple(f"calibration.{name}" for name in WEIGHTING)
"""Keys of the calibration that methods choose; left out of settings where they are what they were in older runs."""

OF_THE_PROTOCOL = {"corpus", "protocol", "window", "stride", "start_token", "sentences"}
"""Keys of the evaluation that the perplexity protocol's hash stands for."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        name: its folder, as short as tells it from the others.
        results: the contents of results.json.
        config: the contents of config.yaml, empty where there is none.
        folder: where all of it lies.
        damaged: files beside these that cannot be read, and why; nothing is taken from them.
    """

    name: str
    results: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    folder: Path = Path()
    damaged: Mapping[str, str] = field(default_factory=dict)

    def file(self, name: str) -> Path | None:
        """Return where a file of the run lies; None where there is none that can be read."""
        path = self.folder / name
        return path if name not in self.damaged and path.is_file() else None

    @cached_property
    def settings(self) -> Settings:
        """Everything that can tell its numbers from another run's, besides the seed, as text by key."""
        results = self.results
        own = {
            "model": str(results["model"]["id"]),
            "criterion": str(results["criterion"]["name"]),
            "solver": str(results.get("solver", {"name": "threshold"})["name"]),
            "schedule": str(results["schedule"]["name"]),
            "pattern": str(results["sparsity"]["pattern"]),
            "sparsity": f"{results['sparsity']['target']:g}",
        }
        for group in COMPARED:
            own |= _flat(group, self.config.get(group) or {})
        own.pop("model.path", None)
        as_before = {key for key in OF_THE_METHOD if own.get(key) == str(ADDED[key])}  # which older runs do not say
        return {key: value for key, value in own.items() if key not in as_before}

    @property
    def seed(self) -> str:
        """Its seed as text."""
        return str(self.results.get("seed", self.config.get("seed", "")))

    @property
    def perplexity(self) -> Mapping[str, Any]:
        """What it measured of perplexity."""
        return self.results.get("perplexity") or {}

    @cached_property
    def changes(self) -> dict[str, Change]:
        """The change of every language; read by every table, and worth keeping with thousands of runs."""
        return changes(self.perplexity)

    @property
    def protocol(self) -> tuple[str, str, str] | None:
        """Hash, name and text of its perplexity protocol; None without one."""
        found = self.perplexity.get("protocol")
        return (str(found["hash"]), str(found["name"]), str(found["corpus"])) if found else None


@dataclass(frozen=True)
class Unfinished:
    """A run without results to compare, and what is known of the reason."""

    name: str
    status: str
    reason: str


def find_runs(folders: Sequence[Path]) -> tuple[list[Run], list[Unfinished]]:
    """Return the finished and the unfinished runs below folders, in the order of their paths.

    Raises:
        ConfigurationError: a folder does not exist, or no run is below any of them.
    """
    for folder in folders:
        if not folder.is_dir():
            raise ConfigurationError("DIR", folder, "there is no such folder")
    wanted = {RESULTS, CONFIGURATION, status.FILE}
    places = sorted(
        {
            Path(place).resolve()
            for folder in folders
            for place, inside, files in os.walk(folder)
            if wanted & {*inside, *files}
        }
    )
    finished, unfinished = [], []
    for place, name in zip(places, _short(places), strict=True):
        found = _read(place, name)
        if isinstance(found, Run):
            finished.append(found)
        elif found is not None:
            unfinished.append(found)
    if not finished and not unfinished:
        raise ConfigurationError("DIR", ", ".join(map(str, folders)), f"there is no {RESULTS} below")
    return finished, unfinished


def _read(folder: Path, name: str) -> Run | Unfinished | None:
    """Return the run in a folder; None where the files are of something else."""
    path, ours = folder / RESULTS, _is_of_a_run(folder)
    try:
        if path.exists() or path.is_symlink():
            content = read_json(path)
            if not ours and (not isinstance(content, dict) or not str(content.get("schema")).startswith(FAMILY)):
                return None
            results: Mapping[str, Any] | None = as_today(checked(content, path))
        else:
            results = None
        if results is not None and results["status"] == "complete":
            run = Run(name, results, _configuration(folder / CONFIGURATION), folder, damaged_files(folder, results))
            _ = run.settings  # which the sections of the configuration make
            return run
    except (RecordError, RecursionError) as error:
        reason = str(error) if isinstance(error, RecordError) else f"{CONFIGURATION}: is nested too deeply"
        return Unfinished(name, UNREADABLE, reason.replace(f"{folder}/", ""))
    found = status.seen(folder)
    if found is not None:  # which knows of the last attempt, where results.json may be of one before
        state, told = found
        return Unfinished(name, state, status.why(state, told) or str(told.get("stage", "")))
    if results is not None:
        return Unfinished(name, str(results["status"]), status.in_a_line(results.get("error") or {}))
    reason = f"no {RESULTS} and no {status.FILE}: killed as it began"
    return Unfinished(name, "unfinished", reason) if ours else None


def _is_of_a_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("overrides.yaml", "run.log")) or status.read(folder) is not None


def _configuration(path: Path) -> Mapping[str, Any]:
    """Return what config.yaml holds; nothing where there is none.

    Raises:
        RecordError: it is damaged.
    """
    if not path.exists():
        return {}
    content = read_yaml(path, dict)
    for group in GROUPS:
        if not isinstance(content.get(group), Mapping | None):
            raise RecordError(f"{path}: {group} must be a mapping")
    return content


def _short(places: Sequence[Path]) -> list[str]:
    """Return the paths without what all of them start with."""
    parts = [place.parts for place in places]
    common = 0
    while all(len(each) > common + 1 for each in parts) and len({each[common] for each in parts}) == 1 and parts:
        common += 1
    # Names of folders need not be text.
    return [os.fsencode("/".join(each[common:])).decode(errors="replace") for each in parts]


def _flat(prefix: str, node: Any) -> Settings:
    """Return the leaves of a configuration by dotted key, without those that change no number."""
    if isinstance(node, Mapping):
        flat: Settings = {}
        for key, value in node.items():
            skipped = key in TELLS_NOTHING_APART or key in NOT_SEMANTIC_WITHIN.get(prefix, ())
            skipped = skipped or (prefix == "evaluation" and key in OF_THE_PROTOCOL)
            flat |= {} if skipped else _flat(f"{prefix}.{key}", value)
        return flat
    if isinstance(node, list) and len(node) > 4:
        return {prefix: f"{node[0]} … {node[-1]} ({len(node)})"}
    if isinstance(node, list):
        return {prefix: ", ".join(map(str, node))}
    return {prefix: "" if node is None else str(node)}
