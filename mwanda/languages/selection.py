"""Sets of languages: named by code or by a rule, and added, taken away or sampled."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Gt

from mwanda.errors import ConfigurationError
from mwanda.languages.lookup import find
from mwanda.languages.table import UNKNOWN, Language, known


@dataclass(frozen=True)
class Selection:
    """The set of languages of a run.

    The set is `codes`, or the whole table where a rule is given and no codes; every rule narrows it; then `include`
    is added, `exclude` taken away, and `sample` of them drawn. The order is that of `codes`, or else of the table.

    Args:
        codes: FLORES+ codes.
        among: only what FLORES+, the Universal Declaration of Human Rights or multilingual C4 has.
        families: only these families or genera.
        scripts: only these scripts, by ISO 15924 code or name.
        levels: only these resource levels: `high`, `mid`, `low`, `unknown`.
        include: codes to add.
        exclude: codes to take away; those that are not in the set are passed over.
        sample: how many to draw; null takes all.
        seed: of the draw.
        available: keep only languages that the corpora have text in, before any is drawn.
    """

    codes: list[str] = field(default_factory=list)
    among: Literal["flores_plus", "udhr", "c4"] | None = None
    families: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    levels: list[str] = field(default_factory=list)
    include: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    sample: Annotated[int, Gt(0)] | None = None
    seed: int = 0
    available: bool = False

    def named(self) -> list[Language]:
        """Return the languages of the set before any is drawn.

        Raises:
            ConfigurationError: a code, family, script or level does not exist, or nothing is left.
        """
        languages = self._begin()
        for key, wanted, matches in (
            ("families", self.families, _of_family),
            ("scripts", self.scripts, _of_script),
            ("levels", self.levels, _of_level),
        ):
            if wanted:
                languages = _narrowed(languages, f"langs.{key}", wanted, matches)
        added = find(self.include, "langs.include") if self.include else []
        languages = list({language.code: language for language in [*languages, *added]}.values())
        excluded = {language.code for language in find(self.exclude, "langs.exclude")} if self.exclude else set()
        left = [language for language in languages if language.code not in excluded]
        if not left:
            raise ConfigurationError("langs.exclude", _list(self.exclude), "leaves no language")
        return left

    def drawn(self, languages: Sequence[Language]) -> list[Language]:
        """Return `sample` of the languages, in the order that they had.

        Raises:
            ConfigurationError: there are fewer than that.
        """
        if self.sample is None:
            return list(languages)
        if self.sample > len(languages):
            raise ConfigurationError("langs.sample", self.sample, f"the set has only {len(languages)}")
        # By code, so that the draw does not depend on the order in which a set is written.
        drawn = set(random.Random(self.seed).sample(sorted(language.code for language in languages), self.sample))
        return [language for language in languages if language.code in drawn]

    def _begin(self) -> list[Language]:
        by_rule = self.among or self.families or self.scripts or self.levels
        if not self.codes and self.include and not by_rule:
            return []
        begin = list(known().values()) if by_rule and not self.codes else find(self.codes)
        if self.among is None:
            return begin
        has: Callable[[Language], object] = {
            "flores_plus": lambda language: language.flores,
            "udhr": lambda language: language.udhr,
            "c4": lambda language: language.c4,
        }[self.among]
        kept = [language for language in begin if has(language)]
        if not kept:
            raise ConfigurationError("langs.among", self.among, "leaves no language of the set")
        return kept


def _narrowed(
    languages: Iterable[Language], key: str, wanted: Sequence[str], matches: Callable[[Language], set[str]]
) -> list[Language]:
    """Return the languages that any of `wanted` matches."""
    languages = list(languages)
    every = sorted({text for language in known().values() for text in matches(language)})
    there = {text.casefold() for text in every}
    for text in wanted:
        if text.casefold() not in there:
            raise ConfigurationError(key, text, "is in no row of the language table", every)
    asked = {text.casefold() for text in wanted}
    left = [language for language in languages if asked & {text.casefold() for text in matches(language)}]
    if not left:
        choices = sorted({text for language in languages for text in matches(language)})
        raise ConfigurationError(key, _list(wanted), "leaves no language of the set, which has", choices)
    return left


def _of_family(language: Language) -> set[str]:
    return {language.family, language.genus} - {UNKNOWN}


def _of_script(language: Language) -> set[str]:
    return {language.script, script_name(language.script)}


def _of_level(language: Language) -> set[str]:
    return {language.resource_level}


def script_name(code: str) -> str:
    """Return the English name of an ISO 15924 script."""
    import pycountry

    script = pycountry.scripts.get(alpha_4=code)
    return script.name.partition(" (")[0] if script else code


def _list(values: Iterable[str]) -> str:
    return f"[{','.join(values)}]"
