"""Typed dictionaries whose keys say what they mean: their names, and a check of a value against them."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict


@dataclass(frozen=True)
class Key:
    """What is to be known of a key besides its type.

    Args:
        meaning: in a few words.
        unit: of the value.
        absent: when the key is not there; of keys that are `NotRequired`.
        null: when the value is null.
        empty: when the value is `{}`, without any of its keys.
        by: what the keys of a mapping are.
        outcome: whether the section says what came out, and not where, when and how fast.
    """

    meaning: str
    unit: str = ""
    absent: str = ""
    null: str = ""
    empty: str = ""
    by: str = ""
    outcome: bool = False


@dataclass(frozen=True)
class Entry:
    """A key of a typed dictionary: its name, type, and what is said of it."""

    name: str
    type: Any
    key: Key
    required: bool


NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "anything"}


def entries(kind: Any) -> list[Entry]:
    """Return the keys of a typed dictionary, in their order; each is `Annotated` with a `Key`."""
    found = []
    for name, hint in get_type_hints(kind, include_extras=True).items():
        required = get_origin(hint) is not NotRequired
        type_, key = get_args(hint if required else get_args(hint)[0])
        found.append(Entry(name, type_, key, required))
    return found


def problems(value: Any, kind: Any, place: str = "") -> Iterator[str]:
    """Yield, in a line each, where a value read from JSON is not what a type says.

    Args:
        value: of dict, list, str, int, float, bool and None.
        kind: a typed dictionary, or any type that stands in one.
        place: of the value, for the lines.
    """
    if is_typeddict(kind):
        yield from _problems_of_keys(value, kind, place)
    elif get_origin(kind) in (Union, UnionType):
        if all(any(problems(value, each)) for each in get_args(kind)):
            yield f"{place}: {value!r} is not {name_of(kind)}"
    elif get_origin(kind) is list and isinstance(value, list):
        for number, each in enumerate(value):
            yield from problems(each, get_args(kind)[0], f"{place}[{number}]")
    elif get_origin(kind) is dict and isinstance(value, dict):
        for name, each in value.items():
            yield from problems(each, get_args(kind)[1], f"{place}.{name}")
    elif kind is not Any and type(value) is not kind:
        yield f"{place}: {value!r} is not {name_of(kind)}"


def _problems_of_keys(value: Any, kind: Any, place: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{place}: {value!r} is not {name_of(kind)}"
        return
    known = {each.name: each for each in entries(kind)}
    yield from (f"{place}.{name}: is not documented" for name in value if name not in known)
    yield from (f"{place}.{name}: is missing" for name, each in known.items() if each.required and name not in value)
    for name, each in known.items():
        if name in value and not (each.key.empty and value[name] == {}):
            yield from problems(value[name], each.type, f"{place}.{name}")


def name_of(kind: Any, by: str = "") -> str:
    """Return what a document calls a type; `by` says what the keys of a mapping are."""
    if is_typeddict(kind):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    if get_origin(kind) in (Union, UnionType):
        parts = [name_of(each, by) for each in get_args(kind) if each is not NoneType]
        return " or ".join([*parts, *(["null"] if NoneType in get_args(kind) else [])])
    if get_origin(kind) is list:
        return f"list of {name_of(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return f"{name_of(get_args(kind)[1])}, by {by or 'name'}"
    return NAMES.get(kind, str(kind))
