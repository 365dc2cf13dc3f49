"""Runs a finished run again and compares, number by number: `python -m mwanda.reproduce RUN_DIR`.

On the same machine with the same packages all numbers are the same to the last digit, and the masks are. Another
processor, GPU or number of threads adds up in another order: numbers then differ by rounding, and a weight whose score
is next to its neighbour's may go in its place. So numbers count as matching within a relative `--tolerance`; masks,
counts, names and fingerprints match only when they are equal.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import yaml

from mwanda.config.identity import RunSpec
from mwanda.errors import ConfigurationError, InputError, MwandaError, RecordError
from mwanda.job.record import read_yaml
from mwanda.job.results import read_results
from mwanda.job.run import run
from mwanda.system.conf import CONF, choices
from mwanda.system.files import write_json
from mwanda.system.secrets import hide_in_terminal


COMPARED = ("model", "criterion", "sparsity", "calibration", "schedule", "perplexity", "tasks", "fingerprints")
"""The sections of results.json that say what came out; the others say where and how long."""

TOLERANCE = 1e-6
REPORT = "reproduction.json"
SHOWN = 40
"""Differences that are printed; all of them stand in the report."""

Verdict = Literal["equal", "close", "different"]


@dataclass(frozen=True)
class Comparison:
    """One number (or name, or digest) of two runs.

    Args:
        place: where it stands in results.json.
        before: what the first run says.
        after: what the second says; None also where it lacks the place.
        verdict: `close` is within the tolerance and not equal.
    """

    place: str
    before: Any
    after: Any
    verdict: Verdict


def compare(before: Mapping[str, Any], after: Mapping[str, Any], tolerance: float = TOLERANCE) -> list[Comparison]:
    """Compare every value of two records of results.

    Args:
        before: results.json of the first run.
        after: of the second.
        tolerance: relative, of numbers that are no whole ones.
    """
    first, second = (dict(_leaves({key: each[key] for key in COMPARED if key in each}, "")) for each in (before, after))
    return [
        Comparison(place, first.get(place), second.get(place), _verdict(first, second, place, tolerance))
        for place in dict.fromkeys((*first, *second))
    ]


def differing_environment(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return, in a line each, what of machine and software is not as it was."""
    first, second = (dict(_leaves(each.get("environment", {}), "")) for each in (before, after))
    return [
        f"{place}: {first.get(place)} → {second.get(place)}"
        for place in sorted({*first, *second})
        if first.get(place) != second.get(place)
    ]


def again(folder: Path, target: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run what `folder` holds the record of in `target`; return the results of both.

    Nothing is taken from the cache of earlier runs, tracked, or exported.

    Raises:
        InputError: there is no complete run in `folder`, or `target` is not empty.
        MwandaError: the second run went wrong.
    """
    none = f"{folder}: holds no config.yaml with the results.json of a complete run"
    try:
        before = read_results(folder)
    except RecordError as error:
        raise InputError(f"{none} ({error})") from None
    if before is None or before.get("status") != "complete" or not (folder / "config.yaml").is_file():
        raise InputError(none)
    if target.exists() and any(target.iterdir()):
        raise ConfigurationError("--output", target, "is not empty; choose another folder")
    config = read_yaml(folder / "config.yaml", dict)
    config |= {
        "mode": "run",
        "resume": False,
        "output_dir": str(target),
        "tracking": {"_target_": "mwanda.tracking.none.NoTracking"},
        "export": {"_target_": None},
    }
    if "artifacts" in config:
        config["artifacts"] = False
    overrides = read_yaml(folder / "overrides.yaml", list) if (folder / "overrides.yaml").is_file() else []
    names = {part: before[part]["name"] for part in ("criterion", "schedule")}
    after = run(RunSpec.of(_as_today(config), names, list(map(str, overrides))))
    assert after is not None
    written = read_results(target)
    assert written is not None
    return before, written


def _as_today(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded configuration in today's form: once `evaluation.corpus` was the name of a choice."""
    if not isinstance(config.get("evaluation"), Mapping):
        raise InputError("config.yaml of the run has no section 'evaluation'")
    evaluation = dict(config["evaluation"])
    named = evaluation.get("corpus")
    if isinstance(named, str) or (isinstance(named, Mapping) and "choice" in named):
        changes = dict(named) if isinstance(named, Mapping) else {"choice": named}
        if changes["choice"] not in choices("corpus"):
            raise ConfigurationError(
                "evaluation.corpus", changes["choice"], "there is no such choice", choices("corpus")
            )
        file = CONF / "corpus" / f"{changes.pop('choice')}.yaml"
        evaluation["corpus"] = yaml.safe_load(file.read_text(encoding="utf-8")) | changes
    return {**config, "evaluation": evaluation}


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield every value with where it stands; entries of lists are called by their name, where they have one."""
    if isinstance(value, Mapping):
        entries = [(str(key), each) for key, each in value.items()]
    elif isinstance(value, list):
        named = [each.get("name") if isinstance(each, Mapping) else None for each in value]
        entries = [(str(name or index), each) for index, (name, each) in enumerate(zip(named, value, strict=True))]
    else:
        yield place, value
        return
    for key, each in entries:
        yield from _leaves(each, f"{place}.{key}".lstrip("."))


def _verdict(first: Mapping[str, Any], second: Mapping[str, Any], place: str, tolerance: float) -> Verdict:
    if place not in first or place not in second:
        return "different"
    before, after = first[place], second[place]
    if before == after and type(before) is type(after):
        return "equal"
    numbers = isinstance(before, float) and isinstance(after, float)
    return "close" if numbers and math.isclose(before, after, rel_tol=tolerance) else "different"


def _report(found: Sequence[Comparison], environment: Sequence[str], tolerance: float) -> None:
    from rich.table import Table

    from mwanda.system.terminal import console

    out = console()
    out.print()
    for line in environment or ["machine and software are as they were"]:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    table = Table(box=None)
    for heading in ("", "equal", f"within {tolerance:g}", "different"):
        table.add_column(heading, justify="left" if not heading else "right")
    for section in COMPARED:
        inside = [each for each in found if each.place.partition(".")[0] == section]
        counts = [sum(each.verdict == verdict for each in inside) for verdict in ("equal", "close", "different")]
        if inside:
            table.add_row(section, *map(str, counts))
    out.print(table)
    unequal = [each for each in found if each.verdict != "equal"]
    for each in sorted(unequal, key=lambda one: one.verdict == "close")[:SHOWN]:
        line = f"{each.verdict}: {each.place}: {each.before} → {each.after}{_share(each)}"
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    if len(unequal) > SHOWN:
        out.print(f"… and {len(unequal) - SHOWN} more")


def _share(each: Comparison) -> str:
    numbers = isinstance(each.before, float) and isinstance(each.after, float) and each.before
    return f" ({each.after / each.before - 1:+.1e})" if numbers else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it again and compare; return 0 when everything matches, 1 when not, 2 when it cannot be run."""
    parser = argparse.ArgumentParser(prog="python -m mwanda.reproduce", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("folder", type=Path, metavar="RUN_DIR", help="with config.yaml and results.json")
    parser.add_argument("--output", type=Path, metavar="DIR", help="for the second run; default: outputs/reproduced/…")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help="relative, of numbers; 0 asks for equal ones (default: %(default)g)",
    )
    typed = parser.parse_args(arguments)
    if not 0 <= typed.tolerance < 1:
        parser.error("--tolerance must be at least 0 and below 1")
    stamp = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    target: Path = typed.output or Path("outputs") / "reproduced" / f"{typed.folder.resolve().name}_{stamp}"
    try:
        before, after = again(typed.folder, target)
    except MwandaError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    found, environment = compare(before, after, typed.tolerance), differing_environment(before, after)
    unequal = [vars(each) for each in found if each.verdict != "equal"]
    matches = all(each.verdict != "different" for each in found)
    content = {"of": str(typed.folder), "tolerance": typed.tolerance, "matches": matches, "environment": environment}
    write_json(target / REPORT, content | {"compared": len(found), "unequal": unequal})
    _report(found, environment, typed.tolerance)
    same_masks = before["sparsity"].get("masks") == after["sparsity"].get("masks")
    print(f"{target}: {'matches' if matches else 'does not match'}; masks are {'the same' if same_masks else 'others'}")
    return int(not matches)


if __name__ == "__main__":
    hide_in_terminal()
    sys.exit(main())
