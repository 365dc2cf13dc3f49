"""Names of sweeps and of their jobs."""

import re
import shlex
from collections.abc import Iterable, Sequence

from mwanda.system import conf


DIGITS = 8

LONGEST_LABEL = 100

LONGEST_VALUE = 40


def command_line(arguments: Sequence[str]) -> str:
    """Return a command as it is typed in a shell; the arguments of another program than run.py begin with its name.

    Where the package is installed there is no run.py, and the command is mwanda-run.
    """
    if list(arguments[:2]) == ["-m", "mwanda.sbatch"]:  # -m alone is Hydra's --multirun
        return shlex.join(["python", *arguments])
    return shlex.join([*conf.program(), *arguments])


def digits(hashes: Iterable[str]) -> int:
    """Return how many digits tell the hashes apart, `DIGITS` at least."""
    every = list(hashes)
    return next(n for n in range(DIGITS, 65) if len({each[:n] for each in every}) == len(every))


def labels(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Return a label for each job: what varies between them."""
    keys, made = varying(jobs), []
    for overrides in jobs:
        values = dict(split(each) for each in overrides)
        parts = [f"{safe(short(key))}_{safe(values[key])}" for key in keys if key in values]
        made.append("-".join(parts)[:LONGEST_LABEL].strip("-_.") or "run")
    return made


def varying(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Return the keys that not all jobs set to one value."""
    values: dict[str, set[str]] = {}
    for overrides in jobs:
        for each in overrides:
            key, value = split(each)
            values.setdefault(key, set()).add(value)
    present = [{split(each)[0] for each in overrides} for overrides in jobs]
    return [key for key, found in values.items() if len(found) > 1 or not all(key in keys for keys in present)]


def split(override: str) -> tuple[str, str]:
    """Return key and value of an override."""
    key, _, value = override.lstrip("+~").partition("=")
    return key, value


def short(key: str) -> str:
    """Return the last part of a key, with its group where it would say little by itself."""
    *_, group, last = ["", *key.split(".")]
    return (
        f"{group}.{last}"
        if last in ("seed", "path", "codes", "corpus", "name") and group not in ("", "langs")
        else last
    )


def safe(value: str, longest: int = LONGEST_VALUE) -> str:
    """Return a text in letters that every file system, every shell and a value of Hydra's take as they are."""
    return re.sub(r"[^a-z0-9._]+", "-", value.lower()).strip("-.")[:longest]
