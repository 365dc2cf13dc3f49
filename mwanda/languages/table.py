"""The language table.

`table.tsv` holds the languages of the embedded corpus: English name, top-level family as Glottolog has it (but
Tai-Kadai and Atlantic-Congo by their common names), and a coarse resource level of our own, by the amount of web
text there is: `high`, `mid`, `low`. Other languages are named by pycountry (ISO 639-3, ISO 15924); their family and
level are `unknown`.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from mwanda.errors import ConfigurationError


# FLORES+ renamed some FLORES-200 codes; the old ones are still in many people's scripts.
RENAMED = {"zho_Hans": "cmn_Hans", "zho_Hant": "cmn_Hant", "tgl_Latn": "fil_Latn"}
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Language:
    """One language in one script.

    Args:
        code: FLORES+ code, e.g. `swh_Latn`.
        name: English name.
        family: top-level family.
        script: ISO 15924 code.
        direction: `ltr` or `rtl`.
        resource_level: `high`, `mid`, `low` or `unknown`.
        c4: the name of its multilingual C4 configuration, if it has one.
    """

    code: str
    name: str
    family: str
    script: str
    direction: str = UNKNOWN
    resource_level: str = UNKNOWN
    c4: str | None = None


@cache
def known() -> dict[str, Language]:
    """Return the languages of the table by code."""
    with files("mwanda.languages").joinpath("table.tsv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    return {row["code"]: Language(**row) for row in rows}


def find(codes: Sequence[str]) -> list[Language]:
    """Return the languages with these codes, in this order.

    Raises:
        ConfigurationError: there is no code, one is given twice, or one is not a language and a script.
    """
    if not codes:
        raise ConfigurationError("langs.codes", "[]", "needs at least one language", known())
    repeated = sorted({code for code in codes if list(codes).count(code) > 1})
    if repeated:
        raise ConfigurationError("langs.codes", repeated[0], "is named twice")
    return [_find_one(code) for code in codes]


def _find_one(code: str) -> Language:
    if code in known():
        return known()[code]
    if code in RENAMED:
        raise ConfigurationError("langs.codes", code, f"FLORES+ calls it {RENAMED[code]}")
    language = _from_standards(code)
    if language is None:
        raise ConfigurationError(
            "langs.codes", code, "is not a FLORES+ code (ISO 639-3, underscore, ISO 15924 script)", known()
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
