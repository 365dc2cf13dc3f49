"""Documents of the offline tasks, made of the evaluation side of an aligned corpus.

Sentence N draws its distractors by the seed and N alone, so that languages of one corpus get the same question.
"""

import random
import unicodedata
from collections.abc import Sequence
from typing import Any


CHOICES = 4
LEADING_VOWELS = frozenset("เแโใไເແໂໃໄ")
"""Thai and Lao vowels that are written before the consonant they follow."""

Document = dict[str, Any]


def cloze(sentences: Sequence[str], seed: int) -> list[Document]:
    """Ask for the end of every sentence, among ends of other sentences of the language."""
    halves = [halve(sentence) for sentence in sentences]
    ends = [end.strip() for _, end in halves]
    documents = []
    for index, (begin, end) in enumerate(halves):
        # All choices follow as the true end does, so that white space gives nothing away.
        lead = end[: len(end) - len(end.lstrip())]
        choices, answer = _choices(ends, index, seed)
        if choices and begin:
            documents.append({"context": begin, "choices": [lead + each for each in choices], "answer": answer})
    return documents


def match(
    sources: Sequence[str], targets: Sequence[str], source_name: str, target_name: str, seed: int
) -> list[Document]:
    """Ask which sentence of one language translates each sentence of another.

    Raises:
        ValueError: the two are not aligned.
    """
    documents = []
    for index, (source, _) in enumerate(zip(sources, targets, strict=True)):
        choices, answer = _choices(targets, index, seed)
        if choices:
            context = f"{source_name}: {source}\n{target_name}:"
            documents.append({"context": context, "choices": [f" {each}" for each in choices], "answer": answer})
    return documents


def halve(sentence: str) -> tuple[str, str]:
    """Cut a sentence near its middle: before white space, else after punctuation, else between two characters.

    The end keeps its white space, so that the two halves make up the sentence.
    """
    middle, length = len(sentence) / 2, len(sentence)
    inner = range(max(1, length // 4), length - length // 4)
    spaces = [at for at in inner if sentence[at].isspace() and not sentence[at - 1].isspace()]
    marks = [at for at in inner if _category(sentence[at - 1]) == "P" and _category(sentence[at]) not in "PM"]
    letters = [at for at in inner if _category(sentence[at]) != "M" and sentence[at - 1] not in LEADING_VOWELS]
    places = spaces or marks or letters
    if not places:
        return "", sentence
    cut = min(places, key=lambda at: abs(at - middle))
    return sentence[:cut], sentence[cut:]


def _choices(texts: Sequence[str], index: int, seed: int) -> tuple[list[str], int]:
    """Return the text at `index` among others that differ from it, and where it stands; nothing if there are none."""
    draw = random.Random(f"{seed}/{index}")
    others = dict.fromkeys(texts[at] for at in draw.sample(range(len(texts)), len(texts)) if at != index)
    wrong = [text for text in others if text and text != texts[index]][: CHOICES - 1]
    answer = draw.randrange(CHOICES)
    if len(wrong) < CHOICES - 1 or not texts[index]:
        return [], answer
    return [*wrong[:answer], texts[index], *wrong[answer:]], answer


def _category(character: str) -> str:
    return unicodedata.category(character)[0]
