"""Which classes a configuration may name by `_target_`: nothing else is imported, let alone called.

The classes of this project are those that the files of `conf/GROUP/` name, each for its own group. A class of the
user's is taken where `plugins=[my_package]` names its package, and where it does what its group asks for.
"""

import importlib
import re
from collections.abc import Sequence
from dataclasses import is_dataclass
from functools import cache
from typing import Any

from mwanda.errors import ConfigurationError
from mwanda.system.conf import CONF


REQUIRED: dict[str, tuple[str, ...]] = {
    "model": ("load_tokenizer", "load_config", "skeleton", "torch_dtype", "load", "fingerprint"),
    "corpus": ("name", "drop_overlap", "has", "sentences"),
    "criterion": ("needs", "group", "score"),
    "schedule": ("level", "looks_at", "needs", "signal_fraction", "signal", "allocate"),
    "pattern": ("name", "cell", "fixed_sparsity", "check", "groups", "quota"),
    "tracking": ("start", "log_stage", "log_results", "finish"),
    "export": ("name", "write"),
}
"""What a class of a group has; in the other groups a user's class is derived from one that is there."""


@cache
def registered(group: str) -> tuple[str, ...]:
    """Return the full names of a group's classes."""
    texts = (path.read_text(encoding="utf-8") for path in sorted((CONF / group).glob("*.yaml")))
    found = (re.search(r"^_target_: *([\w.]+)", text, re.MULTILINE) for text in texts)
    return tuple(dict.fromkeys(each[1] for each in found if each and each[1] != "null"))


def is_registered(target: object) -> bool:
    """Return whether a class is one of this project's choices, in any group."""
    groups = (each.name for each in CONF.iterdir() if each.is_dir())
    return any(target in registered(group) for group in groups)


def class_of(section: str, target: object, plugins: Sequence[str] = ()) -> Any:
    """Return the class that a section of the configuration names.

    Args:
        section: such as `criterion` or `evaluation.corpus`; its last part is the group.
        target: the full name.
        plugins: packages and modules of the user's whose code may be imported.

    Raises:
        ConfigurationError: it is of another group, of a package that is not named, or no class of that kind.
    """
    group, key = section.rpartition(".")[2], f"{section}._target_"
    if isinstance(target, str) and target in registered(group):
        return _imported(key, target)
    if is_registered(target):
        raise ConfigurationError(key, target, f"is none of the group {group}", registered(group))
    if not isinstance(target, str) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", target):
        raise ConfigurationError(key, target, "is no full name of a class", registered(group))
    if not is_of(target, plugins):
        package = target.partition(".")[0]
        own = "is no class of this project" if package == "mwanda" else f"a class of your own needs plugins=[{package}]"
        raise ConfigurationError(key, target, own, registered(group))
    found = _imported(key, target)
    if not (isinstance(found, type) and is_dataclass(found)):
        raise ConfigurationError(key, target, "is no dataclass")
    _check_suits(key, target, found, group)
    return found


def is_of(target: str, plugins: Sequence[str]) -> bool:
    """Return whether a class lies in one of these packages or modules."""
    return any(target.startswith(f"{plugin}.") for plugin in plugins if plugin != "mwanda")


def _imported(key: str, target: str) -> Any:
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # of the user's own module, which may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigurationError(key, target, f"cannot be imported ({reason})") from None


def _check_suits(key: str, target: str, found: type, group: str) -> None:
    """Refuse a class that does not do what the group asks for."""
    if any(f"{base.__module__}.{base.__qualname__}" in registered(group) for base in found.__mro__):
        return
    if group not in REQUIRED:
        raise ConfigurationError(key, target, f"must be derived from a class of the group {group}", registered(group))
    fields = getattr(found, "__dataclass_fields__", {})
    lacking = [name for name in REQUIRED[group] if not hasattr(found, name) and name not in fields]
    if lacking:
        reason = f"is none of the group {group}, whose classes have {', '.join(lacking)}"
        raise ConfigurationError(key, target, reason, registered(group))
