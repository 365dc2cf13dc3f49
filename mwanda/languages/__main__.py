"""Looks up a language (`python -m mwanda.languages Swahili`) or lists some (`--family Bantu`)."""

import argparse
import sys
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import yaml
from rich.console import Console
from rich.table import Table

from mwanda.errors import InputError
from mwanda.languages.lookup import search
from mwanda.languages.selection import Selection, script_name
from mwanda.languages.sets import language_set
from mwanda.languages.table import Language, known
from mwanda.system.conf import choices
from mwanda.system.secrets import hide_in_terminal


SHOWN = 8
"""Others that a search may have meant."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is known of a language, or the languages that match; return the exit status."""
    asked = _parser().parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True)
    try:
        if asked.language:
            _describe(" ".join(asked.language), console)
        else:
            rules = (asked.among, asked.family, asked.script, asked.level)
            chosen = Selection([], *rules).named() if any(rules) else known().values()
            _list(list(chosen), console)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def tasks(code: str) -> dict[str, str]:
    """Return what each task suite of lm-eval calls a language."""
    return {
        suite: part["languages"][code]
        for suite, parts in _suites().items()
        for part in parts
        if code in part["languages"]
    }


def sets(language: Language) -> list[str]:
    """Return the names of the shipped sets that hold a language."""
    return [name for name, codes in _sets().items() if language.code in codes]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mwanda.languages", description="Finds languages in the table.")
    parser.add_argument("language", nargs="*", help="a name, FLORES+ code, BCP 47 tag or ISO 639 code")
    parser.add_argument("--family", nargs="+", default=[], help="list the languages of families or genera")
    parser.add_argument("--script", nargs="+", default=[], help="list the languages in scripts (ISO 15924 or name)")
    parser.add_argument("--level", nargs="+", default=[], help="list the languages of resource levels: high, mid, low")
    parser.add_argument("--among", choices=["flores_plus", "udhr", "c4"], help="list only what that corpus has")
    return parser


def _describe(text: str, console: Console) -> None:
    found = search(text)
    if not found:
        raise InputError(f"{text}: no language is called that; --family, --script and --level list those there are")
    best = found[0]
    for key, value in _facts(best):
        console.print(f"{key:<15} {value}", markup=False)
    siblings = [each for each in known().values() if each.iso_639_3 == best.iso_639_3]
    others = {each.code: each.name for each in [*siblings, *found] if each != best}
    if others:
        named = [f"{code} {name}" for code, name in others.items()]
        console.print(f"{'see also':<15} {'; '.join(named[:SHOWN])}", markup=False)


def _facts(language: Language) -> list[tuple[str, str]]:
    level = language.resource_level
    joshi = "not in classes 1 to 5" if language.joshi is None else f"class {language.joshi}"
    words = tasks(language.code)
    return [
        ("code", language.code),
        ("name", language.name),
        ("also", "; ".join(language.also) or "-"),
        ("ISO 639-3", language.iso_639_3),
        ("BCP 47", language.bcp_47 or "-"),
        ("family", language.family),
        ("genus", language.genus),
        ("script", f"{language.script} ({script_name(language.script)}, {language.direction})"),
        ("resource level", f"{level} ({joshi} of Joshi et al. 2020)"),
        ("FLORES+", "yes" if language.flores else "-"),
        ("C4", language.c4 or "-"),
        ("UDHR", " ".join(language.udhr) or "-"),
        ("lm-eval", ", ".join(f"{suite} {word}" for suite, word in words.items()) or "-"),
        ("sets", " ".join(sets(language)) or "-"),
    ]


def _list(languages: Sequence[Language], console: Console) -> None:
    table = Table(
        "code", "name", "BCP 47", "family", "genus", "level", "FLORES+", "C4", "UDHR", box=None, pad_edge=False
    )
    for each in languages:
        row = (each.code, each.name, each.bcp_47, each.family, each.genus, each.resource_level)
        table.add_row(*row, "yes" if each.flores else "", each.c4 or "", " ".join(each.udhr[:2]))
    console.print(table)
    console.print(f"{len(languages)} languages", markup=False)


@cache
def _suites() -> dict[str, list[dict[str, dict[str, str]]]]:
    """Read the file itself: the package that it belongs to imports torch."""
    table: dict[str, list[dict[str, dict[str, str]]]] = yaml.safe_load(
        (files("mwanda") / "evaluation" / "suites.yaml").read_text(encoding="utf-8")
    )
    return table


@cache
def _sets() -> dict[str, set[str]]:
    chosen = {name: language_set("langs", name) for name in choices("langs") if name != "inline"}
    return {name: {language.code for language in one.named()} for name, one in chosen.items()}


if __name__ == "__main__":
    hide_in_terminal()
    raise SystemExit(main())
