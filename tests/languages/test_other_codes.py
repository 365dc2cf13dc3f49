"""Codes that others use for a language: each stands for one language only."""

import pycountry
import pytest

from mwanda.languages import find, known
from mwanda.languages.lookup import RENAMED
from mwanda.languages.other_codes import MACROLANGUAGES, macrolanguage, macrolanguage_by_tag, other_codes


@pytest.mark.parametrize(
    ("code", "others"),
    [
        ("cmn_Hans", ["zho_Hans"]),
        ("cmn_Hant", ["zho_Hant"]),
        ("arb_Arab", ["ara_Arab"]),
        ("pes_Arab", ["fas_Arab"]),
        ("zsm_Latn", ["msa_Latn"]),
        ("swh_Latn", ["swa_Latn"]),
        ("ekk_Latn", ["est_Latn"]),
        ("apc_Arab", ["ajp_Arab"]),
        ("ktu_Latn", ["kon_Latn"]),
        ("kng_Latn", []),
        ("ary_Arab", []),
        ("prs_Arab", []),
        ("yue_Hant", []),
        ("deu_Latn", []),
    ],
)
def test_other_codes_of_a_language(code: str, others: list[str]) -> None:
    assert other_codes(find([code])[0]) == others


def test_no_code_stands_for_two_languages() -> None:
    every = [code for language in known().values() for code in other_codes(language)]
    assert len(every) == len(set(every))
    assert not set(every) & known().keys()
    assert set(every) >= RENAMED.keys()


def test_macrolanguages_are_those_of_the_standard() -> None:
    for macro, covered in MACROLANGUAGES.items():
        assert pycountry.languages.get(alpha_3=macro).scope == "M"
        assert {pycountry.languages.get(alpha_3=code).scope for code in covered.split()} == {"I"}
    single = [code for covered in MACROLANGUAGES.values() for code in covered.split()]
    assert len(single) == len(set(single))


def test_the_tag_of_the_web_names_the_macrolanguage_that_covers_a_language() -> None:
    for language in known().values():
        by_tag = macrolanguage_by_tag(language)
        assert by_tag in (None, macrolanguage(language.iso_639_3)), language.code
