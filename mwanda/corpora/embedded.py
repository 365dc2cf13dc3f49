"""The embedded parallel corpus: written for this project, 30 languages, 84 aligned sentences."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import ClassVar

from mwanda.corpora.base import Split
from mwanda.errors import CorpusError
from mwanda.languages import Language


SUBJECTS = ("everyday", "scientific", "legal", "narrative")


@dataclass(frozen=True)
class Embedded:
    """Sentence N says the same in every language; sentences with an odd number calibrate, the others evaluate.

    Four subjects of 21 sentences follow each other (everyday, scientific, legal, narrative), so that both splits
    hold every subject.

    Args:
        drop_overlap: leave calibration lines out that evaluation text holds as well, instead of refusing them.
    """

    name: ClassVar[str] = "embedded"
    drop_overlap: bool = False

    def has(self, language: Language) -> bool:
        """Return whether it is one of the languages of the corpus."""
        return language.code in codes()

    def sentences(self, language: Language, split: Split) -> Iterator[str]:
        """Yield every second sentence."""
        yield from all_sentences(language.code)[0 if split == "calibration" else 1 :: 2]


def all_sentences(code: str) -> list[str]:
    """Return the sentences of one language.

    Raises:
        CorpusError: the corpus lacks the language.
    """
    if code not in codes():
        raise CorpusError(
            f"corpus=embedded has no text in {code}; it has {', '.join(codes())}; "
            "use corpus=local with corpus.path=FOLDER for other languages"
        )
    return (_folder() / f"{code}.txt").read_text(encoding="utf-8").splitlines()


@cache
def codes() -> list[str]:
    """Return the FLORES+ codes of all languages that there are."""
    return sorted(file.name.removesuffix(".txt") for file in _folder().iterdir() if file.name.endswith(".txt"))


def _folder() -> Traversable:
    return files("mwanda.corpora") / "text"
