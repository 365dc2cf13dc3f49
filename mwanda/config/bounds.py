"""What any value of a configuration may be, whatever its key: something that files, paths and tensors can hold."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mwanda.errors import ConfigurationError


PATHS = ("path", "folder", "output_dir")
"""Keys whose texts are places in a file system."""

LONGEST_NAME, LONGEST_PATH = 255, 4095
"""Bytes of a file's name, and of its whole path, that a file system takes."""

LARGEST = 2**63
"""Beyond all whole numbers that a tensor can hold."""

SHOWN = 60
"""Characters of a long value that a message shows."""


def check_values(value: Any, key: str = "") -> None:
    """Refuse values, anywhere in a configuration, that cannot be written down or used.

    Raises:
        ConfigurationError: a text is none, a path too long or of nobody, or a number too large.
    """
    if isinstance(value, Mapping):
        for name, each in value.items():
            _check_text(f"{key}.{name}".lstrip("."), str(name))
            check_values(each, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list | tuple):
        for each in value:
            check_values(each, key)
    elif isinstance(value, str):
        _check_text(key, value)
        if key.rpartition(".")[2] in PATHS:
            _check_path(key, value)
    elif isinstance(value, int) and not -LARGEST < value < LARGEST:
        raise ConfigurationError(key, _short(value), "is too large a number")


def _check_text(key: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(ascii(key)[1:-1], ascii(text), "is no text: it has half a character") from None
    if "\0" in text:
        raise ConfigurationError(ascii(key)[1:-1], ascii(text), "is no text: it has the character of number 0")


def _check_path(key: str, text: str) -> None:
    if len(text.encode()) > LONGEST_PATH or any(len(name.encode()) > LONGEST_NAME for name in text.split("/")):
        raise ConfigurationError(key, _short(text), "is too long for a file system")
    try:
        Path(text).expanduser()
    except RuntimeError:
        raise ConfigurationError(key, text, "there is no user of that name; write the path without ~") from None


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
