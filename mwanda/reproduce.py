"""Runs a finished run again and compares, number by number: `python -m mwanda.reproduce RUN_DIR`.

On the same machine with the same packages all numbers are the same to the last digit, and the masks are. Another
processor, GPU or number of threads adds up in another order: numbers then differ by rounding, and a weight whose score
is next to its neighbour's may be pruned in its place. So numbers count as matching within a relative `--tolerance`;
masks, counts, names and fingerprints match only when they are equal.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import yaml

from mwanda.config.identity import RunSpec
from mwanda.config.registry import is_of, is_registered
from mwanda.errors import ConfigurationError, InputError, MwandaError
from mwanda.job.record import OUTCOME, Results
from mwanda.job.results import RESULTS, read_results
from mwanda.job.run import run
from mwanda.system import conf
from mwanda.system.files import disk_problem, write_json
from mwanda.system.secrets import hide_in_terminal
from mwanda.system.terminal import complain


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
    first, second = (dict(_leaves({key: each[key] for key in OUTCOME if key in each}, "")) for each in (before, after))
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


def again(
    folder: Path, target: Path, *, trust_remote_code: bool = False, plugins: Sequence[str] = ()
) -> tuple[Results, Results]:
    """Run what `folder` holds the record of in `target`; return the results of both.

    Nothing is taken from the cache of earlier runs, tracked, or exported. The folder may be a stranger's: what in it
    asks for code that is not of this project is obeyed by the user's own word alone.

    Args:
        folder: of a complete run.
        target: of the second run.
        trust_remote_code: whether code that comes with the model may run, where the first run allowed that.
        plugins: packages whose classes the configuration may name besides those of this project.

    Raises:
        InputError: there is no complete run in `folder`, it needs code that the user has not allowed, or `target` is
            not empty.
        MwandaError: the second run went wrong.
    """
    before, recorded, overrides = _recorded(folder)
    if target.is_dir() and any(target.iterdir()):
        raise ConfigurationError("--output", target, "is not empty; choose another folder")
    config = _as_today(recorded)
    _refuse_code_of_others(config, trust_remote_code, plugins)
    config |= {
        "mode": "run",
        "resume": False,
        "output_dir": str(target),
        "plugins": list(plugins),
        "tracking": {"_target_": "mwanda.tracking.none.NoTracking"},
        "export": {"_target_": None},
    }
    if "artifacts" in config:
        config["artifacts"] = False
    choices = {part: str(before[part]["name"]) for part in ("criterion", "solver", "schedule")}
    after = run(RunSpec.of(config, choices, overrides))
    assert after is not None
    written = read_results(target)
    assert written is not None
    return before, written


def _recorded(folder: Path) -> tuple[Results, dict[str, Any], list[str]]:
    """Return results, configuration and overrides of a complete run.

    Raises:
        InputError: they are not there, or damaged.
    """
    before = None
    with suppress(OSError, ValueError, InputError):
        before = read_results(folder)
    whole = isinstance(before, dict) and before.get("status") == "complete"
    if before is None or not whole or not (folder / "config.yaml").is_file():
        raise InputError(f"{folder}: holds no config.yaml with the results.json of a complete run")
    config = _yaml(folder / "config.yaml", dict)
    overrides = _yaml(folder / "overrides.yaml", list)
    always = [part for part in OUTCOME if part != "inside"]
    lacking = [part for part in (*always, "environment") if not isinstance(before.get(part), Mapping)]
    unnamed = [part for part in ("criterion", "schedule") if part not in lacking and "name" not in before[part]]
    if lacking or unnamed:
        part = lacking[0] if lacking else f"{unnamed[0]}.name"
        raise InputError(f"{folder / RESULTS}: is damaged or of another version: it has no section '{part}'")
    return before, config, [str(each) for each in overrides]


def _yaml(path: Path, kind: type[Any]) -> Any:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot be read ({reason})") from None
    if not isinstance(found, kind):
        raise InputError(f"{path}: is damaged: it holds no {'keys' if kind is dict else 'list'}")
    return found


def _refuse_code_of_others(config: Mapping[str, Any], trust_remote_code: bool, plugins: Sequence[str]) -> None:
    """Refuse to run code that the folder of a run names and the user does not."""
    for target in _values_of("_target_", config):
        if target is None or is_registered(target) or (isinstance(target, str) and is_of(target, plugins)):
            continue
        package = str(target).partition(".")[0]
        raise ConfigurationError(
            "_target_", target, f"the run used a class of another package; if you trust it, add --plugins {package}"
        )
    if any(value is not False for value in _values_of("trust_remote_code", config)) and not trust_remote_code:
        model = config.get("model")
        path = model.get("path") if isinstance(model, Mapping) else None
        raise ConfigurationError(
            "model.trust_remote_code",
            "true",
            f"the run executed code that comes with {path}; if you trust it, add --trust-remote-code",
        )


def _values_of(key: str, value: Any) -> Iterator[Any]:
    """Yield what a key holds anywhere in a configuration."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            if name == key:
                yield each
            else:
                yield from _values_of(key, each)
    elif isinstance(value, list):
        for each in value:
            yield from _values_of(key, each)


def _as_today(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded configuration in today's form: once `evaluation.corpus` was the name of a choice."""
    evaluation = config.get("evaluation")
    if not isinstance(evaluation, Mapping):
        return dict(config)  # which the schema refuses, and names the key
    evaluation = dict(evaluation)
    named = evaluation.get("corpus")
    if isinstance(named, str) or (isinstance(named, Mapping) and "choice" in named):
        changes = dict(named) if isinstance(named, Mapping) else {"choice": named}
        choice = changes.pop("choice")
        if choice not in conf.choices("corpus"):
            raise ConfigurationError("evaluation.corpus", choice, "there is no such choice", conf.choices("corpus"))
        file = conf.CONF / "corpus" / f"{choice}.yaml"
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
    for section in OUTCOME:
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
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run code that comes with the model, where the run did so"
    )
    parser.add_argument(
        "--plugins", nargs="+", default=[], metavar="PACKAGE", help="packages whose classes the run may name"
    )
    typed = parser.parse_args(arguments)
    if not 0 <= typed.tolerance < 1:
        parser.error("--tolerance must be at least 0 and below 1")
    stamp = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    target: Path = typed.output or Path("outputs") / "reproduced" / f"{typed.folder.resolve().name}_{stamp}"
    try:
        before, after = again(typed.folder, target, trust_remote_code=typed.trust_remote_code, plugins=typed.plugins)
    except MwandaError as error:
        complain(error)
        return error.exit_code
    except OSError as error:
        problem = disk_problem(error)
        if problem is None:
            raise
        complain(problem)
        return 1
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
