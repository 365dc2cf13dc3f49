"""Runs to Weights & Biases from their result files: `python -m mwanda.sync DIR …`, however often."""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mwanda.errors import ConfigurationError, InputError, RecordError
from mwanda.system.secrets import hide_in_terminal
from mwanda.system.terminal import complain


if TYPE_CHECKING:
    from mwanda.tracking.weights_and_biases import WeightsAndBiases


Found = tuple[Path, dict[str, Any], dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Send every run below folders; return 1 when one could not be read or sent, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m mwanda.sync",
        description="Send runs to Weights & Biases from their result files, under the ids they always have: what is "
        "there already is not sent twice. The key is WANDB_API_KEY or that of `wandb login`.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="a run, a sweep, or a folder of them")
    parser.add_argument("--project", help="in place of the one that each run was configured with")
    parser.add_argument("--entity", help="likewise: user or team")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS", help="for each run (default: 120)")
    given = parser.parse_args(arguments)
    where = {key: value for key in ("project", "entity") if (value := getattr(given, key)) is not None}
    damaged: list[InputError] = []
    sent = 0
    try:
        for folder, results, config in _runs(given.folders, damaged):
            _send(folder, results, config, where, given.timeout)
            sent += 1
            print(f"sent: {folder}", flush=True)
        if not sent and not damaged:
            raise ConfigurationError("DIR", ", ".join(map(str, given.folders)), "there is no results.json below")
    except InputError as error:
        complain(error)
        return error.exit_code
    except OSError as error:
        print(f"not sent: {error}", file=sys.stderr)
        return 1
    finally:
        for problem in damaged:
            print(f"unreadable: {problem}", file=sys.stderr)
    return int(bool(damaged))


def _runs(folders: Sequence[Path], damaged: list[InputError]) -> Iterator[Found]:
    """Yield the runs below folders that have ended; those whose files cannot be read go to `damaged`.

    Raises:
        ConfigurationError: there is no such folder.
    """
    from mwanda.job.reading import read_yaml
    from mwanda.job.results import RESULTS, read_results

    for folder in folders:
        if not folder.is_dir():
            raise ConfigurationError("DIR", folder, "there is no such folder")
        for place, inside, files in os.walk(folder):
            inside.sort()
            if RESULTS not in files:
                continue
            try:
                results = read_results(Path(place))
                config = read_yaml(Path(place) / "config.yaml", dict)
                if results is None or not isinstance(results.get("run_id"), str):
                    raise RecordError(f"{Path(place) / RESULTS}: run_id is missing")
                yield Path(place), dict(results), config
            except InputError as error:
                damaged.append(error)


def _send(
    folder: Path, results: dict[str, Any], config: dict[str, Any], where: Mapping[str, str], timeout: float
) -> None:
    from mwanda.tracking.weights_and_biases import send

    options = _options(config)
    options = replace(
        options, project=where.get("project", options.project), entity=where.get("entity", options.entity)
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        send(options, _identity(folder, results, config), config, results, Path(place), timeout)


def _options(config: Mapping[str, Any]) -> "WeightsAndBiases":
    """Return where a run goes: what it was configured with, if that was Weights & Biases."""
    from mwanda.tracking.weights_and_biases import WeightsAndBiases

    tracking = config.get("tracking")
    if not isinstance(tracking, Mapping) or not str(tracking.get("_target_")).endswith(".WeightsAndBiases"):
        return WeightsAndBiases(mode="online")
    given = {key: tracking[key] for key in ("project", "entity", "group", "tags") if key in tracking}
    return WeightsAndBiases(**given, mode="online")


def _identity(folder: Path, results: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
    from mwanda.tracking import RunIdentity

    # Those of versions that did not note them have names of what was chosen all the same.
    parts = [(results.get(part) or {}).get("name") for part in ("criterion", "solver", "schedule")]
    tags = results.get("tags", [part for part in parts if part])
    group = results.get("group", folder.parent.name if (folder.parent / "sweep.json").is_file() else None)
    name = str(config.get("name") or folder.name)
    return RunIdentity(str(results["run_id"]), name, group, "run", tuple(tags), folder)


if __name__ == "__main__":
    hide_in_terminal()
    sys.exit(main())
