"""The refusal of calibration text that evaluation text holds, and the way to leave it out."""

import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mwanda.corpora import check_disjoint, without_overlap
from mwanda.corpora.embedded import all_sentences, codes
from mwanda.corpora.overlap import AT_ONCE, fingerprints
from mwanda.errors import CorpusError


SENTENCE = "Die Äpfel fielen  später auf die Straße."
DISGUISES: dict[str, Callable[[str], str]] = {
    "as it stands": lambda text: text,
    "upper case": str.upper,
    "lower case": str.lower,
    "decomposed": lambda text: unicodedata.normalize("NFD", text),
    "decomposed upper case": lambda text: unicodedata.normalize("NFD", text.upper()),
    "other spaces": lambda text: f"\t{text.replace(' ', chr(0xA0) + ' ')}\r\n",
    "no spaces": lambda text: text.replace(" ", ""),
    "full width": lambda text: text.replace("D", "\N{FULLWIDTH LATIN CAPITAL LETTER D}"),
    "zero width": lambda text: "\ufeff" + "\u200b".join(text),
    "joiners": lambda text: text.replace(" ", "\u200c \u200d"),
    "soft hyphens": lambda text: "\xad".join(text),
    "directions": lambda text: f"\u202a{text}\u202c\u200f",
    "in quotation marks": lambda text: f"“{text}”",
    "in other quotation marks": lambda text: f"„{text}‟»«",
    "without its full stop": lambda text: text.rstrip(".。।።؟!"),
    "with another mark": lambda text: text.rstrip(".。।።") + "…",
    "with a dash": lambda text: f"– {text} ―",
    "with a variation selector": lambda text: f"{text}\ufe0f",
    "with controls": lambda text: f"\x00\x07{text}\x1b",
}
WITHOUT_A_COMMON_CASE = {"tur_Latn"}
"""Turkish pairs i with İ and ı with I, which no case folding that serves all languages can do."""


def error_of(calibration: dict[str, list[str]], evaluation: dict[str, list[str]]) -> str:
    """Return the error of an overlap, which is one line."""
    with pytest.raises(CorpusError) as caught:
        check_disjoint(calibration, evaluation)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_line_on_both_sides_is_refused_in_any_disguise(disguise: str) -> None:
    other = DISGUISES[disguise](SENTENCE)
    message = error_of({"deu_Latn": ["Guten Tag.", other]}, {"deu_Latn": ["Guten Abend.", SENTENCE]})
    assert message.startswith("the calibration text of deu_Latn and the evaluation text of deu_Latn share the line '")
    assert "corpus.drop_overlap=true" in message
    assert "evaluation.corpus=" in message


def test_a_line_of_another_language_is_refused_and_both_languages_and_the_line_are_named() -> None:
    calibration = {"eng_Latn": ["One.", "Two."], "swh_Latn": ["Moja.", "Three."]}
    evaluation = {"eng_Latn": ["three"], "deu_Latn": ["Drei."]}
    message = error_of(calibration, evaluation)
    assert "calibration text of swh_Latn and the evaluation text of eng_Latn share the line 'Three.'; " in message


def test_a_whole_language_under_another_name_is_counted() -> None:
    english = [f"Sentence {number}." for number in range(50)]
    message = error_of({"swh_Latn": english, "deu_Latn": ["Nein.", english[0]]}, {"eng_Latn": english})
    assert "the line 'Sentence 0.' (and 50 more in 2 languages)" in message


def test_languages_that_hold_the_line_are_named_its_own_first() -> None:
    evaluation = {code: ["Ja."] for code in ("dan_Latn", "deu_Latn", "nob_Latn", "swe_Latn")}
    assert "evaluation text of deu_Latn, dan_Latn, nob_Latn, … share" in error_of({"deu_Latn": ["ja"]}, evaluation)


def test_a_long_line_is_quoted_by_its_beginning() -> None:
    line = "abcdefghij\n" * 20
    assert f"'{line.replace(chr(10), ' ')[:59]}…'" in error_of({"deu_Latn": [line]}, {"deu_Latn": [line]})


@pytest.mark.parametrize(
    ("calibration", "evaluation"),
    [
        ([SENTENCE], ["Die Apfel fielen später auf die Straße."]),
        (["का"], ["कि"]),
        (["5 + 3"], ["5 × 3"]),
        (["3.14"], ["3.15"]),
        ([SENTENCE], []),
        ([], [SENTENCE]),
        ([], [SENTENCE, SENTENCE]),
        (["..."], ["!!!"]),
        (["", "\u200b"], ["—"]),
    ],
    ids=[
        "another letter", "another vowel sign", "another symbol", "another digit", "no evaluation", "no calibration",
        "repeated on one side", "other punctuation", "nothing but punctuation",
    ],
)  # fmt: skip
def test_different_text_passes(calibration: list[str], evaluation: list[str]) -> None:
    check_disjoint({"deu_Latn": calibration}, {"deu_Latn": evaluation})


def test_a_line_without_letters_is_the_same_only_as_it_stands() -> None:
    assert "share the line '* * *'" in error_of({"deu_Latn": ["* * *"]}, {"eng_Latn": [" *  * * "]})


def test_lines_are_left_out_of_the_calibration_text_alone_and_counted() -> None:
    calibration = {"eng_Latn": ["One.", "Two.", "Three."], "swh_Latn": ["Moja.", "TWO"], "deu_Latn": ["Eins."]}
    evaluation = {"eng_Latn": ["Four.", "two!"], "deu_Latn": ["one"]}
    kept, dropped = without_overlap(calibration, evaluation)
    assert kept == {"eng_Latn": ["Three."], "swh_Latn": ["Moja."], "deu_Latn": ["Eins."]}
    assert dropped == {"eng_Latn": 2, "swh_Latn": 1}
    check_disjoint(kept, evaluation)


def test_without_an_overlap_nothing_is_left_out() -> None:
    calibration = {"eng_Latn": ["One.", "One."]}
    assert without_overlap(calibration, {"eng_Latn": ["Two."]}) == (calibration, {})


def test_the_embedded_corpus_shares_no_line_between_any_two_languages() -> None:
    halves = [{code: all_sentences(code)[start::2] for code in codes()} for start in (0, 1)]
    check_disjoint(*halves)


def test_no_disguise_changes_the_fingerprint_of_a_sentence_in_any_script() -> None:
    sentences = {code: all_sentences(code) for code in sorted(set(codes()) - WITHOUT_A_COMMON_CASE)}
    plain = {code: fingerprints(lines) for code, lines in sentences.items()}
    told_apart = [
        (code, name)
        for name, disguise in DISGUISES.items()
        for code, lines in sentences.items()
        if fingerprints([disguise(line) for line in lines]) != plain[code]
    ]
    assert told_apart == []


@settings(deadline=None)
@given(st.text("aé\u0301\u0345ΐΰßſǰﬁİ K", max_size=8), st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_composition_never_changes_a_fingerprint(text: str, form: str) -> None:
    assert fingerprints([unicodedata.normalize(form, text)]) == fingerprints([text])  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.lists(st.text(max_size=6), max_size=6))
def test_a_line_has_its_fingerprint_whatever_stands_around_it(lines: list[str]) -> None:
    assert fingerprints(lines) == [mark for line in lines for mark in fingerprints([line])]


def test_many_lines_are_taken_in_parts() -> None:
    lines = [str(number) for number in range(2 * AT_ONCE + 3)]
    assert len(set(fingerprints(lines))) == len(lines)
