"""The embedded corpus is what it says: aligned, in the right scripts, and split without overlap."""

import unicodedata
from functools import cache
from importlib.resources import files
from statistics import mean, median

import numpy as np
import pytest

from mwanda.corpora import check_disjoint
from mwanda.corpora.embedded import SUBJECTS, Embedded, all_sentences, codes
from mwanda.errors import CorpusError
from mwanda.languages import find, known


CODES = codes()
LINES = 84
WITHOUT_SPACES = {"cmn_Hans", "jpn_Jpan", "tha_Thai"}
HAN = ("CJK UNIFIED IDEOGRAPH", "IDEOGRAPHIC ITERATION MARK")
LETTERS: dict[str, tuple[str, ...]] = {
    "Arab": ("ARABIC",),
    "Beng": ("BENGALI",),
    "Cyrl": ("CYRILLIC",),
    "Deva": ("DEVANAGARI",),
    "Ethi": ("ETHIOPIC",),
    "Geor": ("GEORGIAN",),
    "Grek": ("GREEK",),
    "Hang": ("HANGUL",),
    "Hans": HAN,
    "Hebr": ("HEBREW",),
    "Jpan": (*HAN, "HIRAGANA", "KATAKANA"),
    "Latn": ("LATIN",),
    "Taml": ("TAMIL",),
    "Telu": ("TELUGU",),
    "Thai": ("THAI",),
}
"""How the Unicode names of a script's letters and marks begin."""

INVISIBLE = {"\N{ZERO WIDTH NON-JOINER}", "\N{NO-BREAK SPACE}", "\N{NARROW NO-BREAK SPACE}"}
"""Persian and Telugu spell with the one, French sets the others before some marks."""

LONGEST, SHORTEST = 1.5, 1 / 1.5
"""Of a line against its language's median ratio to English; two lines in one, or half a line, lie beyond."""


@cache
def lengths(code: str) -> np.ndarray:
    """Return the standardised lengths of a language's lines."""
    counted = np.array([len(line) for line in all_sentences(code)], dtype=float)
    return (counted - counted.mean()) / counted.std()


def agreement(code: str, lines: range, shift: int) -> float:
    """Return how a language's line lengths, `shift` lines further, correlate with those of all others."""
    others = np.mean([lengths(other) for other in CODES if other != code], axis=0)
    places = np.array([line for line in lines if 0 <= line + shift < LINES])
    return float(np.corrcoef(lengths(code)[places + shift], others[places])[0, 1])


def test_there_are_thirty_languages_those_of_the_table() -> None:
    folder = files("mwanda.corpora") / "text"
    assert sorted(file.name for file in folder.iterdir()) == [f"{code}.txt" for code in CODES]
    assert len(CODES) == 30


def test_languages_are_of_many_families_and_scripts() -> None:
    assert len({language.family for language in find(CODES)}) >= 10
    assert len({language.script for language in find(CODES)}) >= 8


@pytest.mark.parametrize("code", CODES)
def test_files_are_plain_lines(code: str) -> None:
    raw = (files("mwanda.corpora") / "text" / f"{code}.txt").read_bytes().decode("utf-8")
    lines = raw.removesuffix("\n").split("\n")
    assert raw.endswith("\n")
    assert lines == all_sentences(code)
    assert len(lines) == LINES
    assert all(line and line == line.strip() and "  " not in line for line in lines)
    assert {character for line in lines for character in line if not character.isprintable()} <= INVISIBLE


@pytest.mark.parametrize("code", CODES)
def test_text_is_composed(code: str) -> None:
    for line in all_sentences(code):
        assert unicodedata.is_normalized("NFC", line), line


@pytest.mark.parametrize("code", CODES)
def test_every_letter_is_of_the_script_of_the_code(code: str) -> None:
    text = "".join(all_sentences(code))
    letters = {character for character in text if unicodedata.category(character)[0] in "LM"}
    beginnings = LETTERS[known()[code].script]
    assert letters
    assert [letter for letter in sorted(letters) if not unicodedata.name(letter).startswith(beginnings)] == []


def test_japanese_uses_all_its_scripts() -> None:
    text = "".join(all_sentences("jpn_Jpan"))
    for beginning in ("CJK UNIFIED", "HIRAGANA", "KATAKANA"):
        assert any(unicodedata.name(character).startswith(beginning) for character in text)


def test_no_sentence_is_repeated_or_shared_between_languages() -> None:
    every = [line for code in CODES for line in all_sentences(code)]
    assert len(set(every)) == len(every) == 30 * LINES


@pytest.mark.parametrize("code", CODES)
def test_sentences_are_long_enough_to_be_text(code: str) -> None:
    lines = all_sentences(code)
    if code in WITHOUT_SPACES:
        assert mean(len(line) for line in lines) >= 35
    else:
        assert mean(len(line.split()) for line in lines) >= 20


@pytest.mark.parametrize("code", CODES)
def test_no_line_is_far_longer_or_shorter_than_its_english_one(code: str) -> None:
    ratios = [
        len(line) / len(english) for line, english in zip(all_sentences(code), all_sentences("eng_Latn"), strict=True)
    ]
    usual = median(ratios)
    beyond = [number for number, ratio in enumerate(ratios, 1) if not SHORTEST < ratio / usual < LONGEST]
    assert beyond == []


@pytest.mark.parametrize("code", CODES)
def test_no_language_is_shifted_by_some_lines(code: str) -> None:
    """Long and short sentences alternate alike in all languages, in either half and only where lines are aligned."""
    for lines in (range(LINES // 2), range(LINES // 2, LINES)):
        shifted = [agreement(code, lines, shift) for shift in (-3, -2, -1, 1, 2, 3)]
        assert agreement(code, lines, 0) > max(shifted)


@pytest.mark.parametrize("code", CODES)
def test_the_splits_are_disjoint_and_cover_everything(code: str) -> None:
    (language,) = find([code])
    calibration = list(Embedded().sentences(language, "calibration"))
    evaluation = list(Embedded().sentences(language, "evaluation"))
    check_disjoint({language.code: calibration}, {language.code: evaluation})
    assert len(calibration) == len(evaluation) == LINES // 2
    assert set(calibration) | set(evaluation) == set(all_sentences(code))
    assert calibration[0] == all_sentences(code)[0]


def test_the_splits_of_all_languages_hold_the_same_lines() -> None:
    """So that a language is never evaluated on the translation of what another calibrated with."""
    for split in ("calibration", "evaluation"):
        chosen = {
            tuple(all_sentences(language.code).index(line) for line in Embedded().sentences(language, split))
            for language in find(CODES)
        }
        assert len(chosen) == 1


@pytest.mark.parametrize("subject", SUBJECTS)
def test_both_splits_hold_every_subject(subject: str) -> None:
    each = LINES // len(SUBJECTS)
    begin = SUBJECTS.index(subject) * each
    lines = set(all_sentences("eng_Latn")[begin : begin + each])
    (english,) = find(["eng_Latn"])
    held = [len(lines & set(Embedded().sentences(english, split))) for split in ("calibration", "evaluation")]
    assert each * len(SUBJECTS) == LINES
    assert sorted(held) == [each // 2, each - each // 2]


def test_a_language_without_text_is_refused_with_what_there_is_and_what_to_do() -> None:
    (yoruba,) = find(["yor_Latn"])
    with pytest.raises(CorpusError) as caught:
        list(Embedded().sentences(yoruba, "evaluation"))
    assert "corpus=embedded has no text in yor_Latn" in str(caught.value)
    assert all(code in str(caught.value) for code in CODES)
    assert "corpus=local" in str(caught.value)


def test_its_name_is_what_the_user_types() -> None:
    assert Embedded().name == "embedded"
