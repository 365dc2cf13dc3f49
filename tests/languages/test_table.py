"""Finding languages, and the errors for those that cannot be found."""

import pycountry
import pytest

from mwanda.errors import ConfigurationError
from mwanda.languages import Language, find, known


WRITTEN_RIGHT_TO_LEFT = {"Arab", "Hebr"}


def error_of(codes: list[str]) -> str:
    """Return the error of finding these codes, which is one line and names the key."""
    with pytest.raises(ConfigurationError) as caught:
        find(codes)
    message = str(caught.value)
    assert message.startswith("langs.codes=")
    assert "\n" not in message
    return message


def nearest_of(message: str) -> str:
    """Return the first choice that an error offers."""
    return message.partition("choices: ")[2].split(", ")[0]


def test_languages_come_in_the_order_asked_for() -> None:
    codes = ["tha_Thai", "deu_Latn", "amh_Ethi"]
    assert [language.code for language in find(codes)] == codes
    assert find(["swh_Latn"]) == [Language("swh_Latn", "Swahili", "Atlantic-Congo", "Latn", "ltr", "low", "sw")]


def test_every_language_of_the_table_can_be_found() -> None:
    assert find(list(known())) == list(known().values())


def test_the_table_agrees_with_the_standards_and_itself() -> None:
    for code, language in known().items():
        iso_639_3, _, script = code.partition("_")
        assert pycountry.languages.get(alpha_3=iso_639_3)
        assert pycountry.scripts.get(alpha_4=script)
        assert (language.code, language.script) == (code, script)
        assert language.direction == ("rtl" if script in WRITTEN_RIGHT_TO_LEFT else "ltr")
        assert language.resource_level in {"high", "mid", "low"}
        assert all((language.name, language.family, language.c4))


def test_no_two_languages_have_one_name_or_one_c4_configuration() -> None:
    assert len({language.name for language in known().values()}) == len(known())
    assert len({language.c4 for language in known().values()}) == len(known())


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("deu_Ltan", "deu_Latn"), ("deu_latn", "deu_Latn"), ("fra-Latn", "fra_Latn"), ("hin_Dewa", "hin_Deva")],
)
def test_a_typo_is_answered_by_the_nearest_code(typed: str, meant: str) -> None:
    message = error_of(["eng_Latn", typed])
    assert f"langs.codes={typed}: is not a FLORES+ code" in message
    assert nearest_of(message) == meant


@pytest.mark.parametrize(
    "typed", ["", "deu", "German", "_Latn", "deu_", "DEU_LATN", "Deu_Latn", "deu_Latn_1", "de_Latn"]
)
def test_what_is_not_a_code_is_refused(typed: str) -> None:
    assert "is not a FLORES+ code" in error_of([typed])


@pytest.mark.parametrize(("old", "new"), [("zho_Hans", "cmn_Hans"), ("zho_Hant", "cmn_Hant"), ("tgl_Latn", "fil_Latn")])
def test_a_renamed_code_is_answered_by_its_new_name(old: str, new: str) -> None:
    assert error_of([old]) == f"langs.codes={old}: FLORES+ calls it {new}"
    assert [language.code for language in find([new])] == [new]


def test_a_repeated_code_is_refused() -> None:
    assert error_of(["deu_Latn", "fra_Latn", "deu_Latn"]) == "langs.codes=deu_Latn: is named twice"


def test_an_empty_list_is_refused_and_shows_choices() -> None:
    message = error_of([])
    assert "needs at least one language" in message
    assert nearest_of(message) in known()


def test_a_code_outside_the_table_comes_from_the_standards() -> None:
    assert "yor_Latn" not in known()
    assert find(["yor_Latn"]) == [Language("yor_Latn", "Yoruba", "unknown", "Latn", "unknown", "unknown", None)]


def test_a_language_of_the_table_in_another_script_comes_from_the_standards() -> None:
    (found,) = find(["kaz_Latn"])
    assert (found.name, found.script, found.family) == ("Kazakh", "Latn", "unknown")
