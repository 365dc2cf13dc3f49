"""Questions made of an aligned corpus: what they ask, and that they give nothing away."""

import pytest

from mwanda.corpora.embedded import Embedded, codes
from mwanda.evaluation.tasks.documents import CHOICES, cloze, halve, match
from mwanda.languages import find


SENTENCES = [f"Sentence number {number} says something of its own, as ever {number}." for number in range(9)]


@pytest.mark.parametrize(
    ("sentence", "begin"),
    [
        ("one two three four", "one two"),
        ("夕食を作った人は、皿を洗わない。", "夕食を作った人は、"),
        ("日本語だけの長い文章", "日本語だけ"),
        ("กขคงเจฉช", "กขคง"),
        ("กขคเงจฉ", "กขค"),
        ("e\u0301e\u0301e\u0301", "e\u0301"),
        ("ab", "a"),
        ("a", ""),
        ("", ""),
    ],
    ids=["spaces", "punctuation", "letters", "Thai", "Thai, leading vowel", "combining marks", "short", "one", "none"],
)
def test_a_sentence_is_cut_near_its_middle_where_its_script_allows(sentence: str, begin: str) -> None:
    assert halve(sentence)[0] == begin
    assert "".join(halve(sentence)) == sentence


def test_every_embedded_language_is_cut_into_halves_that_make_up_the_sentence() -> None:
    failures = []
    for language in find(codes()):
        sentences = list(Embedded().sentences(language, "evaluation"))
        documents = cloze(sentences, 0)
        whole = [document["context"] + document["choices"][document["answer"]] for document in documents]
        if whole != sentences:
            failures.append((language.code, whole))
        for sentence, document in zip(sentences, documents, strict=True):
            halves = 0.24 < len(document["context"]) / len(sentence) < 0.76
            distinct = len(set(document["choices"])) == CHOICES
            alike = len({choice[:1].isspace() for choice in document["choices"]}) == 1
            if not (halves and distinct and alike):
                failures.append((language.code, document))
    assert failures == []


def test_languages_of_an_aligned_corpus_get_the_same_questions() -> None:
    asked = []
    for code in ("eng_Latn", "swh_Latn", "cmn_Hans"):
        sentences = list(Embedded().sentences(find([code])[0], "evaluation"))
        ends = [halve(sentence)[1].strip() for sentence in sentences]
        asked.append([[ends.index(choice.strip()) for choice in each["choices"]] for each in cloze(sentences, 0)])
    assert asked[0] == asked[1] == asked[2]


def test_the_seed_chooses_the_distractors() -> None:
    assert cloze(SENTENCES, 0) == cloze(SENTENCES, 0)
    assert cloze(SENTENCES, 0) != cloze(SENTENCES, 1)
    answers = {document["answer"] for seed in range(5) for document in cloze(SENTENCES, seed)}
    assert answers == set(range(CHOICES))


def test_a_translation_stands_among_others() -> None:
    sources = [f"source {number}" for number in range(6)]
    targets = [f"target {number}" for number in range(6)]
    for number, document in enumerate(match(sources, targets, "English", "Swahili", 3)):
        assert document["context"] == f"English: source {number}\nSwahili:"
        assert document["choices"][document["answer"]] == f" target {number}"
        assert len(set(document["choices"])) == CHOICES


def test_equal_sentences_are_no_distractors() -> None:
    repeated = ["the same sentence here"] * 3 + SENTENCES[:3]
    documents = match(repeated, repeated, "A", "B", 0)
    assert len(documents) == 6
    assert all(len(set(document["choices"])) == CHOICES for document in documents)
    assert cloze(["the same sentence here"] * 9, 0) == []


def test_what_is_not_aligned_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        match(SENTENCES, SENTENCES[1:], "A", "B", 0)
