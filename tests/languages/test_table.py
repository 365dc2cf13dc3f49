"""Finding languages, and the errors for those that cannot be found."""

import unicodedata
from dataclasses import replace

import pycountry
import pytest

from mwanda.corpora import embedded
from mwanda.errors import ConfigurationError
from mwanda.evaluation.suites import OFFLINE, suite_tasks, suites
from mwanda.languages import Language, find, known
from mwanda.languages.lookup import RENAMED
from mwanda.languages.table import RIGHT_TO_LEFT, UDHR_UNIDENTIFIED


WRITTEN_RIGHT_TO_LEFT = {"Adlm", "Arab", "Hebr", "Nkoo", "Syrc", "Thaa"}
OF_TASKS_AND_MODELS = {"aka_Latn", "ben_Latn", "npi_Latn", "sin_Latn", "urd_Latn"}


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
    (swahili,) = find(["swh_Latn"])
    described = Language(
        "swh_Latn", "Swahili", "Atlantic-Congo", "Latn", "ltr", "low", "sw", "Bantu", "sw", 2, flores=True
    )
    assert replace(swahili, udhr=(), also=()) == described
    assert swahili.iso_639_3 == "swh"
    assert swahili.udhr[0] == "swh"


def test_every_language_of_the_table_can_be_found() -> None:
    assert find(list(known())) == list(known().values())


def test_the_table_agrees_with_the_standards_and_itself() -> None:
    for code, language in known().items():
        iso_639_3, _, script = code.partition("_")
        assert pycountry.languages.get(alpha_3=iso_639_3).alpha_3 == iso_639_3
        assert pycountry.scripts.get(alpha_4=script).alpha_4 == script
        assert (language.code, language.script, language.iso_639_3) == (code, script, iso_639_3)
        assert language.direction == ("rtl" if script in WRITTEN_RIGHT_TO_LEFT else "ltr")
        assert language.resource_level in {"high", "mid", "low"}
        assert language.joshi in {None, 1, 2, 3, 4, 5}
        assert all((language.name, language.family, language.genus, language.bcp_47))
        assert language.flores or language.udhr or language.c4 or code in OF_TASKS_AND_MODELS


def test_scripts_written_right_to_left_are_those_whose_letters_unicode_says_are() -> None:
    letters = {"Adlm": "𞤀", "Arab": "ع", "Hebr": "א", "Nkoo": "ߊ", "Syrc": "ܐ", "Thaa": "ހ"}
    assert letters.keys() == RIGHT_TO_LEFT == WRITTEN_RIGHT_TO_LEFT
    assert {unicodedata.bidirectional(letter) for letter in letters.values()} == {"R", "AL"}


def test_no_two_languages_have_one_name_tag_c4_configuration_or_declaration() -> None:
    for texts in (
        [language.name for language in known().values()],
        [language.bcp_47 for language in known().values()],
        [language.c4 for language in known().values() if language.c4],
        [key for language in known().values() for key in language.udhr] + list(UDHR_UNIDENTIFIED),
    ):
        assert len(set(texts)) == len(texts)


def test_the_table_is_sorted_and_has_the_languages_that_it_is_said_to_have() -> None:
    languages = known().values()
    assert list(known()) == sorted(known())
    assert sum(language.flores for language in languages) == 210
    assert sum(language.c4 is not None for language in languages) == 107
    assert sum(len(language.udhr) for language in languages) + len(UDHR_UNIDENTIFIED) == 528
    assert set(embedded.codes()) <= {language.code for language in languages if language.flores}


def test_languages_of_one_code_agree_in_all_but_what_the_script_changes() -> None:
    by_iso: dict[str, set[tuple[str, str, int | None]]] = {}
    for language in known().values():
        by_iso.setdefault(language.iso_639_3, set()).add((language.family, language.genus, language.joshi))
    assert all(len(found) == 1 for found in by_iso.values())


def test_a_genus_belongs_to_one_family() -> None:
    families: dict[str, set[str]] = {}
    for language in known().values():
        families.setdefault(language.genus, set()).add(language.family)
    families.pop("unknown")
    assert {genus: found for genus, found in families.items() if len(found) > 1} == {}


def test_every_language_of_a_task_suite_is_in_the_table() -> None:
    languages = {name: {code for code, _, _ in suite_tasks(name)} for name in suites() if name not in OFFLINE}
    assert {name: codes - known().keys() for name, codes in languages.items() if not codes <= known().keys()} == {}


def test_resource_levels_are_those_of_joshi_and_others() -> None:
    levels = {
        code: known()[code].resource_level for code in ("eng_Latn", "eus_Latn", "tha_Thai", "yor_Latn", "tel_Telu")
    }
    assert levels == {"eng_Latn": "high", "eus_Latn": "high", "tha_Thai": "mid", "yor_Latn": "low", "tel_Telu": "low"}
    assert known()["ura_Latn"].joshi is None


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


@pytest.mark.parametrize(("old", "new"), sorted(RENAMED.items()))
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
    assert "zza_Latn" not in known()
    assert find(["zza_Latn"]) == [Language("zza_Latn", "Zaza", "unknown", "Latn")]


def test_a_language_of_the_table_in_another_script_comes_from_the_standards() -> None:
    (found,) = find(["kaz_Latn"])
    assert (found.name, found.script, found.family) == ("Kazakh", "Latn", "unknown")


def test_the_time_to_find_codes_grows_with_their_number_and_not_with_its_square() -> None:
    class Code(str):
        """Counts how often codes are compared."""

        __slots__ = ()
        compared = 0

        def __eq__(self, other: object) -> bool:
            Code.compared += 1
            return str(self) == other

        __hash__ = str.__hash__

    codes = [Code(f"{each.alpha_3}_Latn") for each in list(pycountry.languages)[:1000]]
    with pytest.raises(ConfigurationError, match="is named twice"):
        find([*codes, *codes])
    assert Code.compared < 10 * len(codes)
