"""Secrets, kept out of everything that is written or printed.

A secret is the value of an environment variable that is named like one (`HF_TOKEN`, `WANDB_API_KEY`, `DB_PASSWORD`),
and whatever stands where a URL has user and password, or a key among its parameters. In place of a value stands the
name of its variable, as Hydra reads it: `${oc.env:HF_TOKEN}`. What is typed again then means what it meant.
"""

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus


NAMED = re.compile(
    r"(?:^|_)(?:API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|PASS|CREDENTIAL|PAT|AUTH)S?(?:_?\d+)?$|_PWD$",
    re.IGNORECASE,
)
"""What names of variables end in that hold a secret."""

SHORTEST = 8
"""Characters below which a value is no key, and could be part of an ordinary word or number."""

IN_HYDRA, IN_SHELL, PLAIN = "${{oc.env:{}}}", "${}", "{}"
"""What stands for the value of a variable: in a configuration, in a script, and in the name of a file."""

HIDDEN = "***"
"""Stands for what no variable holds."""

# Every repetition is bounded: a text of a megabyte must not take its length squared.
SCHEME = r"(?P<scheme>\b[a-z][a-z0-9+.-]{0,15}://)"
USER_AND_PASSWORD = re.compile(
    SCHEME + r"""[^\s/@:"'<>]{0,200}:(?!\d{0,5}/)(?:[^\s@"'<>]{0,500}@){1,3}""",
    re.IGNORECASE,
)
"""Of a URL; `http://host:80/…@` is none, as the port ends where the path begins."""

TOKEN_ALONE = re.compile(r"""(?P<scheme>\bhttps?://)[^\s/@"'<>]{1,500}@""", re.IGNORECASE)
PARAMETER = re.compile(
    r"(?P<name>[?&;](?:[\w-]{0,30}(?:token|secret|password|passwd|signature|credential|api_?key)|key|sig|pwd)=)[^\s&;#\"'<>]+",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Secrets:
    """The secrets of an environment.

    Args:
        names: of the variable that holds each value, by the forms in which the value may stand in a text.
    """

    names: Mapping[str, str]

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Secrets":
        """Return what `environment` holds of secrets."""
        return _of(tuple((name, value) for name, value in environment.items() if NAMED.search(name)))

    def hidden(self, text: str, form: str = IN_HYDRA) -> str:
        """Return `text` without secrets.

        Args:
            text: anything.
            form: what stands for the value of a variable; `{}` is its name.
        """
        if self.names:
            text = _pattern(tuple(self.names)).sub(lambda found: form.format(self.names[found[0]]), text)
        if "://" not in text:
            return text
        for pattern in (USER_AND_PASSWORD, TOKEN_ALONE):
            text = pattern.sub(rf"\g<scheme>{HIDDEN}@", text)
        return PARAMETER.sub(rf"\g<name>{HIDDEN}", text)

    def hidden_within(self, value: Any) -> Any:
        """Return a copy of mappings, lists and texts within each other, without secrets; a tuple becomes a list."""
        if isinstance(value, str):
            return self.hidden(value)
        if isinstance(value, Mapping):
            return {self._key(key): self.hidden_within(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.hidden_within(each) for each in value]
        return value

    def _key(self, key: Any) -> Any:
        """Hide a key that a user may have typed; a plain word is one of our own, whatever variables hold."""
        plain = not isinstance(key, str) or re.fullmatch("[a-z_]+", key) is not None
        return key if plain else self.hidden(key)


def hidden(text: str, form: str = IN_HYDRA) -> str:
    """Return `text` without the secrets of this process's environment; see `Secrets.hidden`."""
    return Secrets.of(os.environ).hidden(text, form)


def hidden_within(value: Any) -> Any:
    """Return a copy of mappings, lists and texts within each other, without the secrets of the environment."""
    return Secrets.of(os.environ).hidden_within(value)


def hidden_path(path: Any) -> Any:
    """Return a path without secrets in what of it is not there yet: the name of a folder is to tell none."""
    if not isinstance(path, str) or hidden(path) == path:
        return path
    whole = Path(path).expanduser()
    there = next(each for each in (whole, *whole.parents) if each == each.parent or each.exists())
    return str(there / hidden(str(whole.relative_to(there)), PLAIN)) if whole != there else path


@lru_cache(maxsize=8)
def _of(variables: tuple[tuple[str, str], ...]) -> Secrets:
    names: dict[str, str] = {}
    for name, value in variables:
        for part in _parts(value):
            for form in (part, quote(part, safe=""), quote_plus(part), json.dumps(part)[1:-1], repr(part)[1:-1]):
                names.setdefault(form, name)
    # The longest first: one value may be the beginning of another.
    return Secrets({form: names[form] for form in sorted(names, key=len, reverse=True)})


def _parts(value: str) -> Iterator[str]:
    """Yield what of a value is secret: all of it, and of several lines each, as other text may stand between them."""
    whole = value.strip()
    if _is_place(whole):
        return
    for part in dict.fromkeys([whole, *map(str.strip, whole.splitlines())]):
        if len(part) >= SHORTEST:
            yield part


def _is_place(value: str) -> bool:
    """Return whether a value says where a key is, which is no secret."""
    try:
        return value.startswith("/") and Path(value).exists()
    except (OSError, ValueError):
        return False


@lru_cache(maxsize=8)
def _pattern(forms: tuple[str, ...]) -> re.Pattern[str]:
    """Return what finds any of the forms; one of digits alone is found as a whole number, not within another."""
    found = (rf"(?<![\d.]){form}(?![\d.])" if form.isdigit() else re.escape(form) for form in forms)
    return re.compile("|".join(found))


class HidingStream:
    """A stream of text that nothing secret passes; all else of it is that of the stream behind it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text without secrets; return how much of it was taken."""
        self._stream.write(hidden(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts without secrets."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def hide_in_terminal() -> None:
    """Let nothing secret through to the terminal, or to where standard output and error go instead."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, HidingStream):
            setattr(sys, name, HidingStream(stream))
