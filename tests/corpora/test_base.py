"""The refusal of evaluation text that calibration has seen."""

import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mwanda.corpora import check_disjoint
from mwanda.corpora.base import fingerprint
from mwanda.corpora.embedded import all_sentences, codes
from mwanda.errors import CorpusError
from mwanda.languages import find


GERMAN, GREEK = find(["deu_Latn", "ell_Grek"])
SENTENCE = "Die Äpfel fielen  später auf die Straße."
DISGUISES: dict[str, Callable[[str], str]] = {
    "as it stands": lambda text: text,
    "upper case": str.upper,
    "lower case": str.lower,
    "decomposed": lambda text: unicodedata.normalize("NFD", text),
    "decomposed upper case": lambda text: unicodedata.normalize("NFD", text.upper()),
    "other spaces": lambda text: f"\t{text.replace(' ', chr(0xA0) + ' ')}\r\n",
    "full width": lambda text: text.replace("D", "\N{FULLWIDTH LATIN CAPITAL LETTER D}"),
}
WITHOUT_A_COMMON_CASE = {"tur_Latn"}
"""Turkish pairs i with İ and ı with I, which no case folding that serves all languages can do."""


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_sentence_on_both_sides_is_refused_in_any_disguise_and_quoted(disguise: str) -> None:
    other = DISGUISES[disguise](SENTENCE)
    with pytest.raises(CorpusError) as caught:
        check_disjoint(GERMAN, ["Guten Tag.", SENTENCE], ["Guten Abend.", other])
    assert str(caught.value).startswith(f"deu_Latn: calibration and evaluation share the sentence '{other}'; ")
    assert "evaluation.corpus=" in str(caught.value)


def test_a_long_sentence_is_quoted_by_its_beginning() -> None:
    sentence = "abcdefghij" * 20
    with pytest.raises(CorpusError) as caught:
        check_disjoint(GERMAN, [sentence], [sentence])
    assert f"'{sentence[:59]}…'" in str(caught.value)


@pytest.mark.parametrize(
    ("calibration", "evaluation"),
    [
        ([SENTENCE], ["Die Apfel fielen später auf die Straße."]),
        ([SENTENCE], ["Die Äpfel fielen später auf die Straße"]),
        ([SENTENCE], []),
        ([], [SENTENCE]),
        ([], [SENTENCE, SENTENCE]),
    ],
    ids=["another letter", "another mark", "no evaluation", "no calibration", "repeated on one side"],
)
def test_different_text_passes(calibration: list[str], evaluation: list[str]) -> None:
    check_disjoint(GERMAN, calibration, evaluation)


def test_text_may_come_as_a_stream() -> None:
    with pytest.raises(CorpusError, match="share the sentence 'b'"):
        check_disjoint(GREEK, iter(["a", "b"]), iter(["c", "b"]))


@pytest.mark.parametrize("code", sorted(set(codes()) - WITHOUT_A_COMMON_CASE))
def test_no_disguise_changes_the_fingerprint_of_a_sentence_in_any_script(code: str) -> None:
    for sentence in all_sentences(code):
        assert {fingerprint(disguise(sentence)) for disguise in DISGUISES.values()} == {fingerprint(sentence)}


@settings(deadline=None)
@given(st.text("aé\u0301\u0345ΐΰßſǰﬁİ K", max_size=8), st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_composition_never_changes_a_fingerprint(text: str, form: str) -> None:
    assert fingerprint(unicodedata.normalize(form, text)) == fingerprint(text)  # type: ignore[arg-type]
