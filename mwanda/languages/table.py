"""The language table: `table.tsv`, a row for each language in each script.

docs/languages.md says where each column comes from. Languages outside the table are named by pycountry (ISO 639-3,
ISO 15924); what the table would say of them is `unknown`.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


RIGHT_TO_LEFT = frozenset({"Adlm", "Arab", "Hebr", "Nkoo", "Syrc", "Thaa"})

LEVELS = {5: "high", 4: "high", 3: "mid"}
"""Resource level by class of Joshi et al. (ACL 2020), grouped as for Aya (Singh et al., ACL 2024); others are low."""

UDHR_UNIDENTIFIED = ("013", "014", "016", "017", "021", "022", "023", "025", "026", "050")
"""Texts of the Universal Declaration whose index names no ISO 639-3 language."""

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Language:
    """One language in one script.

    Args:
        code: FLORES+ code, e.g. `swh_Latn`: ISO 639-3, underscore, ISO 15924.
        name: English name.
        family: top-level family (Glottolog).
        script: ISO 15924 code.
        direction: `ltr` or `rtl`.
        resource_level: `high`, `mid`, `low` or `unknown`.
        c4: the name of its multilingual C4 configuration, if it has one.
        genus: a group as old as Germanic or Bantu (WALS), or `unknown`.
        bcp_47: the tag of web standards, e.g. `sw`.
        joshi: class 1 to 5 of Joshi et al. (ACL 2020); None for class 0 and what they do not list.
        flores: whether FLORES+ has text in it.
        udhr: keys of its texts of the Universal Declaration of Human Rights, the best first.
        also: other names.
    """

    code: str
    name: str
    family: str
    script: str
    direction: str = UNKNOWN
    resource_level: str = UNKNOWN
    c4: str | None = None
    genus: str = UNKNOWN
    bcp_47: str | None = None
    joshi: int | None = None
    flores: bool = False
    udhr: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def iso_639_3(self) -> str:
        """The code of the language alone."""
        return self.code[:3]


@cache
def known() -> dict[str, Language]:
    """Return the languages of the table by code."""
    with files("mwanda.languages").joinpath("table.tsv").open(encoding="utf-8") as stream:
        rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        return {row["code"]: _of_row(row) for row in rows}


def _of_row(row: dict[str, str]) -> Language:
    script = row["code"][4:]
    joshi = int(row["joshi"]) if row["joshi"] else None
    return Language(
        code=row["code"],
        name=row["name"],
        family=row["family"],
        script=script,
        direction="rtl" if script in RIGHT_TO_LEFT else "ltr",
        resource_level=LEVELS.get(joshi or 0, "low"),
        c4=row["c4"] or None,
        genus=row["genus"],
        bcp_47=row["bcp_47"],
        joshi=joshi,
        flores=row["flores"] == "yes",
        udhr=tuple(row["udhr"].split()),
        also=tuple(filter(None, row["also"].split("; "))),
    )
