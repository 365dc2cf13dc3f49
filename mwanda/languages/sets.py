"""The shipped sets of languages."""

import yaml

from mwanda.errors import ConfigurationError
from mwanda.languages.selection import Selection
from mwanda.system.conf import CONF, choices


LISTED_ELSEWHERE = {"mwanda15": "https://github.com/RochelleChoenni/M-Wanda"}
"""Sets that a paper names, and where the paper's authors list them."""


def refuse_listed_elsewhere(key: str, name: str) -> None:
    """Refuse a paper's set that is not shipped; `key` is what the error names.

    Raises:
        ConfigurationError: it is one, and the error says where its list is and how to give it.
    """
    if name in LISTED_ELSEWHERE:
        reason = f"the paper's languages are listed at {LISTED_ELSEWHERE[name]}; give them as {key}=[CODE,CODE,…]"
        raise ConfigurationError(key, name, reason)


def language_set(key: str, name: str) -> Selection:
    """Return a shipped set of languages; `key` is what an error names.

    Raises:
        ConfigurationError: there is no such set.
    """
    refuse_listed_elsewhere(key, name)
    if name not in choices("langs"):
        raise ConfigurationError(key, name, "is no set of languages", choices("langs"))
    node = yaml.safe_load((CONF / "langs" / f"{name}.yaml").read_text(encoding="utf-8"))
    return Selection(**{name: value for name, value in node.items() if name not in ("defaults", "seed")})
