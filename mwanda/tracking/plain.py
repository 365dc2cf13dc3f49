"""Values as JSON has them, without secrets."""

import os
from collections.abc import Mapping, Sequence, Set
from typing import Any


# Anything shorter is no key, and could be part of an ordinary word.
SHORTEST_SECRET = 8
SECRETS = ("WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def plain(value: Any) -> Any:
    """Return a copy of `value` made of dict, list, str, numbers and None, with the secrets of the environment cut."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {without_secrets(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence | Set) and not isinstance(value, str):
        return [plain(item) for item in value]
    return without_secrets(str(value))


def without_secrets(text: str) -> str:
    """Return `text` with the name of the variable in place of any secret that the environment holds."""
    for name in SECRETS:
        secret = os.environ.get(name, "")
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, f"${name}")
    return text
