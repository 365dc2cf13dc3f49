"""The shipped sets of languages."""

import yaml

from mwanda.errors import ConfigurationError
from mwanda.languages.selection import Selection
from mwanda.system.conf import CONF, choices


def language_set(key: str, name: str) -> Selection:
    """Return a shipped set of languages; `key` is what an error names.

    Raises:
        ConfigurationError: there is no such set.
    """
    if name not in choices("langs"):
        raise ConfigurationError(key, name, "is no set of languages", choices("langs"))
    node = yaml.safe_load((CONF / "langs" / f"{name}.yaml").read_text(encoding="utf-8"))
    return Selection(**{name: value for name, value in node.items() if name not in ("defaults", "seed")})
