"""Finds a language by its code, tag or name, misspelled or not."""

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache

from mwanda.errors import ConfigurationError
from mwanda.languages.table import UNKNOWN, Language, known


CLOSE = 0.75
"""How alike a name must be to one that is misspelt, as difflib measures it."""


def search(text: str) -> list[Language]:
    """Return the languages that `text` may mean, the likeliest first: by code, tag or name, then nearly so."""
    wanted = _plain(text)
    exact = _named().get(wanted, [])
    if exact:
        return exact
    through_standards = by_tag(wanted)
    if through_standards:
        return through_standards
    parts = [word for word in _named() if len(wanted) > 2 and any(each.startswith(wanted) for each in word.split())]
    close = difflib.get_close_matches(wanted, _named(), n=5, cutoff=CLOSE)
    return _languages_of([*sorted(parts, key=len), *close])


def nearest(code: str) -> list[str]:
    """Return the codes that a wrong code may stand for: those of what it names, or else all codes."""
    language, _, script = code.replace("-", "_").partition("_")
    meant = [each for text in (code, language) for each in _named().get(_plain(text)) or by_tag(_plain(text))]
    alike = [each.code for each in meant if each.script.casefold() == script.casefold()]
    return list(dict.fromkeys(alike)) or list(dict.fromkeys(each.code for each in meant)) or list(known())


@cache
def _named() -> dict[str, list[Language]]:
    """Return the languages by each of their codes and names; what FLORES+ has comes first."""
    found: dict[str, list[Language]] = {}
    for language in sorted(known().values(), key=lambda each: (not each.flores, each.code)):
        for text in dict.fromkeys(map(_plain, _names(language))):
            found.setdefault(text, []).append(language)
    for old, new in RENAMED.items():
        found.setdefault(_plain(old), [known()[new]])
    return found


def _names(language: Language) -> Iterable[str]:
    yield from (language.code, language.iso_639_3, language.name, language.name.partition(" (")[0])
    yield from filter(None, (language.bcp_47, language.c4))
    yield from language.udhr
    yield from language.also


def by_tag(text: str) -> list[Language]:
    """Return the languages of an ISO 639 code or name that the table does not use, such as `swa` or `zho`.

    FLORES+ names single languages, ISO 639 also groups of them; the tag of the web (`sw`, `zh`) is what they share.
    """
    import pycountry

    try:
        language = pycountry.languages.lookup(text)
    except LookupError:
        return []
    tag = getattr(language, "alpha_2", None) or language.alpha_3
    return _named().get(tag, [])


def _languages_of(words: Iterable[str]) -> list[Language]:
    return list({language.code: language for word in words for language in _named()[word]}.values())


def _plain(text: str) -> str:
    return " ".join(text.replace("_", "-").casefold().split())


RENAMED = {
    "ajp_Arab": "apc_Arab",
    "est_Latn": "ekk_Latn",
    "grn_Latn": "gug_Latn",
    "kon_Latn": "ktu_Latn",
    "tgl_Latn": "fil_Latn",
    "tzm_Tfng": "zgh_Tfng",
    "zho_Hans": "cmn_Hans",
    "zho_Hant": "cmn_Hant",
}
"""FLORES+ renamed some FLORES-200 codes; the old ones are still in many people's scripts."""


def find(codes: Sequence[str], key: str = "langs.codes") -> list[Language]:
    """Return the languages with these codes, in this order; `key` is what an error names.

    Raises:
        ConfigurationError: there is no code, one is given twice, or one is not a language and a script.
    """
    if not codes:
        raise ConfigurationError(key, "[]", "needs at least one language", known())
    repeated = [code for code, count in Counter(codes).items() if count > 1]
    if repeated:
        raise ConfigurationError(key, min(repeated), "is named twice")
    return [_find_one(code, key) for code in codes]


def _find_one(code: str, key: str) -> Language:
    if code in known():
        return known()[code]
    if code in RENAMED:
        raise ConfigurationError(key, code, f"FLORES+ calls it {RENAMED[code]}")
    from mwanda.languages.lookup import by_tag, nearest

    language = _from_standards(code)
    others = [each for each in by_tag(code[:3]) if each.iso_639_3 != code[:3]] if language is not None else []
    meant = [each.code for each in others if each.script == code[4:]]
    if meant:
        raise ConfigurationError(key, code, f"FLORES+ calls it {' or '.join(meant)}")
    if language is None:
        raise ConfigurationError(
            key, code, "is not a FLORES+ code (ISO 639-3, underscore, ISO 15924 script)", nearest(code)
        )
    return language


def _from_standards(code: str) -> Language | None:
    import pycountry

    iso_639_3, _, iso_15924 = code.partition("_")
    language = pycountry.languages.get(alpha_3=iso_639_3)
    script = pycountry.scripts.get(alpha_4=iso_15924)
    if language is None or script is None or (language.alpha_3, script.alpha_4) != (iso_639_3, iso_15924):
        return None  # the look-up itself ignores case
    return Language(code, language.name, UNKNOWN, iso_15924)
