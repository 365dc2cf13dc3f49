"""What a corpus is, and the check that calibration and evaluation text never meet."""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator
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

    def has(self, language: Language) -> bool | None:
        """Return whether there is text in the language, or None where only reading tells."""
        ...

    def sentences(self, language: Language, split: Split) -> Iterator[str]:
        """Yield the non-empty sentences of one language and split, always in the same order.

        Raises:
            CorpusError: the corpus lacks the language.
        """
        ...


def fingerprint(sentence: str) -> bytes:
    """Return a digest of `sentence` that white space, case and Unicode composition do not change."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", " ".join(sentence.split())).casefold())
    return hashlib.blake2b(plain.encode(), digest_size=16).digest()


def check_disjoint(language: Language, calibration: Iterable[str], evaluation: Iterable[str]) -> None:
    """Refuse evaluation text that calibration has seen.

    Raises:
        CorpusError: a sentence stands on both sides; it is quoted.
    """
    seen = {fingerprint(sentence) for sentence in calibration}
    for sentence in evaluation:
        if fingerprint(sentence) in seen:
            raise CorpusError(
                f"{language.code}: calibration and evaluation share the sentence '{_shorten(sentence)}'; "
                "choose another corpus or split for one of them (evaluation.corpus=…)"
            )


def _shorten(sentence: str, width: int = 60) -> str:
    return sentence if len(sentence) <= width else sentence[: width - 1] + "…"
