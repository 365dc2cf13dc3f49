"""Resolves the language sets that a configuration names to lists of codes."""

from collections.abc import Mapping
from typing import Any

from mwanda.config.schema import build, selection
from mwanda.errors import ConfigurationError
from mwanda.languages import Language
from mwanda.languages.sets import language_set


def languages(config: Mapping[str, Any]) -> list[Language]:
    """Return the languages of a run: those of its set, without those that lack text where the user asks for that.

    Raises:
        ConfigurationError: nothing is left.
    """
    chosen = selection(config["langs"])
    named = chosen.named()
    if not chosen.available:
        return chosen.drawn(named)
    of_evaluation = config["evaluation"].get("corpus") or config["corpus"]
    plugins = config.get("plugins", ())
    corpora = [build("corpus", config["corpus"], plugins), build("evaluation.corpus", of_evaluation, plugins)]
    kept = [language for language in named if all(corpus.has(language) for corpus in corpora)]
    if not kept:
        raise ConfigurationError("langs.available", "true", f"corpus={corpora[0].name} has none of the languages")
    return chosen.drawn(kept)


def with_languages(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration with the codes that its sets of languages come to instead of the sets.

    Raises:
        InputError: they come to nothing, or the configuration cannot be used.
    """
    changed = dict(config)
    langs, calibration = config.get("langs"), config.get("calibration")
    if isinstance(langs, Mapping) and not langs.keys() <= {"codes"}:
        changed["langs"] = {"codes": [language.code for language in languages(config)]}
    named = calibration.get("languages") if isinstance(calibration, Mapping) else None
    if isinstance(named, str):
        codes = [language.code for language in language_set("calibration.languages", named).named()]
        changed["calibration"] = config["calibration"] | {"languages": codes}
    return changed
