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


def test_files_are_plain_lines() -> None:
    failures = []
    for code in CODES:
        raw = (files("mwanda.corpora") / "text" / f"{code}.txt").read_bytes().decode("utf-8")
        lines = raw.removesuffix("\n").split("\n")
        plain = all(line and line == line.strip() and "  " not in line for line in lines)
        unprintable = {character for line in lines for character in line if not character.isprintable()}
        as_read = raw.endswith("\n") and lines == all_sentences(code) and len(lines) == LINES
        if not (plain and as_read and unprintable <= INVISIBLE):
            failures.append(code)
    assert failures == []


def test_text_is_composed() -> None:
    every = [(code, line) for code in CODES for line in all_sentences(code)]
    assert [each for each in every if not unicodedata.is_normalized("NFC", each[1])] == []


def test_every_letter_is_of_the_script_of_the_code() -> None:
    strange = {}
    for code in CODES:
        letters = {each for each in "".join(all_sentences(code)) if unicodedata.category(each)[0] in "LM"}
        beginnings = LETTERS[known()[code].script]
        assert letters, code
        strange[code] = [each for each in sorted(letters) if not unicodedata.name(each).startswith(beginnings)]
    assert {code: found for code, found in strange.items() if found} == {}


def test_japanese_uses_all_its_scripts() -> None:
    text = "".join(all_sentences("jpn_Jpan"))
    for beginning in ("CJK UNIFIED", "HIRAGANA", "KATAKANA"):
        assert any(unicodedata.name(character).startswith(beginning) for character in text)


def test_no_sentence_is_repeated_or_shared_between_languages() -> None:
    every = [line for code in CODES for line in all_sentences(code)]
    assert len(set(every)) == len(every) == 30 * LINES


def test_sentences_are_long_enough_to_be_text() -> None:
    short = []
    for code in CODES:
        lines = all_sentences(code)
        spaced = code not in WITHOUT_SPACES
        usual = mean(len(line.split()) for line in lines) if spaced else mean(map(len, lines))
        if usual < (20 if spaced else 35):
            short.append((code, usual))
    assert short == []


def test_no_line_is_far_longer_or_shorter_than_its_english_one() -> None:
    beyond = []
    for code in CODES:
        pairs = zip(all_sentences(code), all_sentences("eng_Latn"), strict=True)
        ratios = [len(line) / len(english) for line, english in pairs]
        usual = median(ratios)
        beyond += [(code, line) for line, ratio in enumerate(ratios, 1) if not SHORTEST < ratio / usual < LONGEST]
    assert beyond == []


def test_no_language_is_shifted_by_some_lines() -> None:
    """Long and short sentences alternate alike in all languages, in either half and only where lines are aligned."""
    shifted = [
        (code, lines)
        for code in CODES
        for lines in (range(LINES // 2), range(LINES // 2, LINES))
        if agreement(code, lines, 0) <= max(agreement(code, lines, shift) for shift in (-3, -2, -1, 1, 2, 3))
    ]
    assert shifted == []


def test_the_splits_are_disjoint_and_cover_everything() -> None:
    failures = []
    for language in find(CODES):
        calibration = list(Embedded().sentences(language, "calibration"))
        evaluation = list(Embedded().sentences(language, "evaluation"))
        check_disjoint({language.code: calibration}, {language.code: evaluation})
        every = all_sentences(language.code)
        halves = len(calibration) == len(evaluation) == LINES // 2
        if not (halves and {*calibration, *evaluation} == set(every) and calibration[0] == every[0]):
            failures.append(language.code)
    assert failures == []


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
