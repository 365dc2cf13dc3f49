"""Resolves names of task suites to tasks without importing lm-eval, whose own index takes many seconds."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from mwanda.errors import ConfigurationError
from mwanda.languages import Language, find


OFFLINE = ("parallel_cloze", "parallel_match")
"""The suites of our own, which need no network."""

KEY = "evaluation.tasks"
NAMED = re.compile(rb"""^(task|group): *["']?([\w.+-]+)["']? *(?:#.*)?\r?$""", re.MULTILINE)


@dataclass(frozen=True)
class Chosen:
    """One task to be run.

    Args:
        name: what lm-eval and the results call it.
        suite: the suite it was chosen by or belongs to, or its own name.
        language: the language it is in, where that is known.
        folder: the folder of its definition, below `lm_eval/tasks`; None for a task of our own.
    """

    name: str
    suite: str
    language: Language | None
    folder: str | None


def choose(names: Sequence[str], languages: Sequence[Language], pivot: str) -> list[Chosen]:
    """Return the tasks that suites and task names stand for; a suite stands for the run's languages that it has.

    Raises:
        ConfigurationError: there is no such task, or a suite has none of the languages.
    """
    chosen = [each for name in names for each in _of_name(name, languages, pivot)]
    return list({each.name: each for each in chosen}.values())


def suites() -> list[str]:
    """Return the names of all suites."""
    return [*OFFLINE, *_table()]


def suite_tasks(suite: str) -> Iterator[tuple[str, str, str]]:
    """Yield code, task name and folder of everything in a suite of lm-eval."""
    for part in _table()[suite]:
        for code, word in part["languages"].items():
            for task in part["tasks"]:
                yield code, task.format(word), part["folder"].format(word)


def words(suite: str) -> dict[str, str]:
    """Return the FLORES+ code of each of lm-eval's words for a language in a suite."""
    return {word: code for part in _table()[suite] for code, word in part["languages"].items()}


def task_root() -> Path:
    """Return the folder of lm-eval's task definitions."""
    spec = find_spec("lm_eval")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "tasks"


def _of_name(name: str, languages: Sequence[Language], pivot: str) -> list[Chosen]:
    if name in OFFLINE:
        found = [_offline(name, each) for each in languages if name != "parallel_match" or each.code != pivot]
        if not found:
            raise ConfigurationError(KEY, name, f"needs a language besides evaluation.pivot={pivot}")
        return found
    if name in _table():
        return _of_suite(name, languages)
    for suite in OFFLINE:
        if name.startswith(f"{suite}_"):
            return [_offline(suite, _language(name, suite, pivot))]
    for suite in _table():
        for code, task, folder in suite_tasks(suite):
            if task == name:
                return [Chosen(name, suite, find([code])[0], folder)]
    everything = _all_names()
    if name not in everything:
        raise ConfigurationError(KEY, name, "is no suite and no task of lm-eval", [*suites(), *everything])
    return [Chosen(name, name, None, everything[name])]


def _of_suite(suite: str, languages: Sequence[Language]) -> list[Chosen]:
    tasks = list(suite_tasks(suite))
    found = [
        Chosen(task, suite, language, folder)
        for language in languages
        for code, task, folder in tasks
        if code == language.code
    ]
    if not found:
        codes = dict.fromkeys(code for code, _, _ in tasks)
        raise ConfigurationError(KEY, suite, "has none of the run's languages; langs that it has", codes)
    return found


def _offline(suite: str, language: Language) -> Chosen:
    return Chosen(f"{suite}_{language.code}", suite, language, None)


def _language(name: str, suite: str, pivot: str) -> Language:
    code = name.removeprefix(f"{suite}_")
    try:
        (language,) = find([code])
    except ConfigurationError as error:
        raise ConfigurationError(KEY, name, f"{code} is not a FLORES+ code", error.choices) from None
    if suite == "parallel_match" and code == pivot:
        raise ConfigurationError(KEY, name, f"translates the pivot into itself (evaluation.pivot={pivot})")
    return language


@cache
def _table() -> dict[str, list[dict[str, Any]]]:
    source = files("mwanda.evaluation").joinpath("suites.yaml")
    table: dict[str, list[dict[str, Any]]] = yaml.safe_load(source.read_text(encoding="utf-8"))
    return table


@cache
def _all_names() -> dict[str, str]:
    """Return the folder to index for every task and group that lm-eval defines, by reading only the lines that name.

    A group may draw on tasks of neighbouring folders, so all of its top folder is indexed.
    """
    root = task_root()
    names: dict[str, str] = {}
    for folder, _, file_names in os.walk(root):
        inside = Path(folder).relative_to(root)
        for file_name in sorted(file_names):
            if file_name.endswith(".yaml"):
                for kind, name in NAMED.findall((Path(folder) / file_name).read_bytes()):
                    names.setdefault(name.decode(), str(inside if kind == b"task" else inside.parts[0]))
    return names
