"""Sets of languages: rules, arithmetic, samples, and what is said of those that cannot be."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mwanda.errors import ConfigurationError
from mwanda.languages import known
from mwanda.languages.selection import Selection, script_name


CODES = st.lists(st.sampled_from(sorted(known())), min_size=1, max_size=12, unique=True)
FAMILIES = st.lists(st.sampled_from(["Bantu", "Indo-European", "Turkic", "Romance"]), max_size=2, unique=True)


def codes(selection: Selection) -> list[str]:
    """Return what a selection comes to."""
    return [language.code for language in selection.drawn(selection.named())]


def codes_or_none(selection: Selection) -> list[str]:
    """Return what a selection comes to, which may be nothing."""
    with suppress(ConfigurationError):
        return codes(selection)
    assert "leaves no language" in error_of(selection)
    return []


def error_of(selection: Selection) -> str:
    """Return the error, which is one line."""
    with pytest.raises(ConfigurationError) as caught:
        codes(selection)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@settings(deadline=None)
@given(CODES, FAMILIES, CODES, CODES)
def test_the_arithmetic_is_that_of_sets(
    begin: list[str], families: list[str], more: list[str], less: list[str]
) -> None:
    kept = [code for code in begin if not families or {known()[code].family, known()[code].genus} & set(families)]
    if families and not kept:
        assert error_of(Selection(begin, families=families, include=more)).startswith("langs.families=")
        return
    found = codes_or_none(Selection(begin, families=families, include=more, exclude=less))
    assert set(found) == (set(kept) | set(more)) - set(less)
    assert len(set(found)) == len(found)


@settings(deadline=None)
@given(CODES)
def test_to_include_and_exclude_the_same_leaves_a_set_without_it(given_codes: list[str]) -> None:
    everything = Selection(given_codes, include=["eng_Latn"], exclude=["eng_Latn"])
    assert codes_or_none(everything) == [code for code in given_codes if code != "eng_Latn"]


@settings(deadline=None)
@given(CODES, st.integers(0, 10**6), st.integers(1, 12))
def test_a_sample_is_a_part_in_the_same_order_and_always_the_same(chosen: list[str], seed: int, count: int) -> None:
    selection = Selection(chosen, sample=min(count, len(chosen)), seed=seed)
    drawn = codes(selection)
    assert len(drawn) == selection.sample
    assert drawn == [code for code in chosen if code in drawn] == codes(selection)
    turned = codes(Selection(chosen[::-1], sample=selection.sample, seed=seed))
    assert turned == drawn[::-1]


def test_seeds_draw_differently() -> None:
    assert len({tuple(codes(Selection(among="flores_plus", sample=10, seed=seed))) for seed in range(5)}) == 5


def test_the_sample_of_a_seed_stays_what_it_is() -> None:
    """Else a finished sweep could not be repeated."""
    romance = Selection(families=["Romance"], among="c4", sample=3, seed=0)
    assert codes(romance) == ["cat_Latn", "por_Latn", "spa_Latn"]


def test_rules_without_codes_choose_from_the_whole_table() -> None:
    bantu = codes(Selection(families=["bantu"]))
    assert {"swh_Latn", "zul_Latn", "yao_Latn"} <= set(bantu)
    assert {known()[code].genus for code in bantu} == {"Bantu"}
    assert bantu == sorted(bantu)


def test_rules_narrow_codes_and_each_other() -> None:
    thirty = ["swh_Latn", "eng_Latn", "hau_Latn", "amh_Ethi"]
    assert codes(Selection(thirty, families=["Afro-Asiatic", "Bantu"])) == ["swh_Latn", "hau_Latn", "amh_Ethi"]
    assert codes(Selection(thirty, families=["Afro-Asiatic"], scripts=["Ethiopic"])) == ["amh_Ethi"]
    assert codes(Selection(families=["Turkic"], scripts=["Arab"], levels=["low"])) == ["azb_Arab", "uig_Arab"]


@pytest.mark.parametrize(
    ("among", "inside", "outside"),
    [
        ("flores_plus", "ace_Arab", "haw_Latn"),
        ("udhr", "haw_Latn", "ace_Arab"),
        ("c4", "haw_Latn", "ace_Arab"),
    ],
)
def test_a_set_can_be_kept_to_what_a_corpus_has(among: str, inside: str, outside: str) -> None:
    found = codes(Selection(among=among))
    assert inside in found
    assert outside not in found


@pytest.mark.parametrize(
    ("selection", "opening", "inside"),
    [
        (Selection(), "langs.codes=[]: needs at least one language", "choices"),
        (Selection(families=["Bantoo"]), "langs.families=Bantoo: ", "choices: Bantu,"),
        (Selection(scripts=["Arabik"]), "langs.scripts=Arabik: ", "choices: Arabic,"),
        (Selection(levels=["lowest"]), "langs.levels=lowest: ", "choices: low, "),
        (Selection(["eng_Latn"], include=["deu_Ltan"]), "langs.include=deu_Ltan: ", "choices: deu_Latn"),
        (Selection(["eng_Latn"], exclude=["zho_Hans"]), "langs.exclude=zho_Hans: ", "cmn_Hans"),
        (Selection(["eng_Latn"], families=["Bantu"]), "langs.families=[Bantu]: leaves no", "Germanic, Indo-European"),
        (Selection(["eng_Latn"], exclude=["eng_Latn"]), "langs.exclude=[eng_Latn]: leaves no language", ""),
        (Selection(["ace_Arab"], among="udhr"), "langs.among=udhr: leaves no language", ""),
        (Selection(["eng_Latn"], sample=2), "langs.sample=2: the set has only 1", ""),
    ],
)
def test_errors_name_the_key_the_value_and_the_nearest(selection: Selection, opening: str, inside: str) -> None:
    message = error_of(selection)
    assert message.startswith(opening)
    assert inside in message


def test_scripts_go_by_name() -> None:
    assert script_name("Deva") == "Devanagari"
    assert codes(Selection(scripts=["devanagari"])) == codes(Selection(scripts=["Deva"]))
