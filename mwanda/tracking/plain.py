"""Values as JSON has them, without secrets."""

import os
from collections.abc import Mapping, Sequence, Set
from typing import Any

from mwanda.system.secrets import Secrets


def plain(value: Any) -> Any:
    """Return a copy of `value` made of dict, list, str, numbers and None, without the secrets of the environment."""
    return Secrets.of(os.environ).hidden_within(_plain(value))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence | Set) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return str(value)
