"""What a corpus is."""

from collections.abc import Iterator
from typing import Literal, Protocol

from mwanda.errors import CorpusError
from mwanda.languages import Language


Split = Literal["calibration", "evaluation"]


class Corpus(Protocol):
    """Gives text, a sentence or paragraph at a time."""

    @property
    def name(self) -> str:
        """What results.json calls it."""
        ...

    @property
    def drop_overlap(self) -> bool:
        """Whether calibration lines that evaluation text holds as well are left out; else they are refused."""
        ...

    def has(self, language: Language) -> bool | None:
        """Return whether there is text in the language, or None where only reading tells."""
        ...

    def sentences(self, language: Language, split: Split) -> Iterator[str]:
        """Yield the non-empty sentences of one language and split, always in the same order.

        Raises:
            CorpusError: the corpus lacks the language, or its text cannot be read.
        """
        ...


def sound(text: str, where: str) -> str:
    """Return a text, if it is one that a tokenizer can read.

    Raises:
        CorpusError: it holds half a character, which no file of text can.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CorpusError(
            f"{where}: '\\u{ord(text[error.start]):04x}' is half a character (a lone surrogate); correct the line"
        ) from None
    return text
