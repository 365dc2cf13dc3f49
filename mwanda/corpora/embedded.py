"""The embedded parallel corpus: written for this project, 30 languages, 84 aligned sentences."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

from mwanda.corpora.base import Split
from mwanda.errors import CorpusError
from mwanda.languages import Language, known


SUBJECTS = ("everyday", "scientific", "legal", "narrative")


@dataclass(frozen=True)
class Embedded:
    """Sentence N says the same in every language; sentences with an odd number calibrate, the others evaluate.

    Four subjects of 21 sentences follow each other (everyday, scientific, legal, narrative), so that both splits
    hold every subject.
    """

    name: str = "embedded"

    def sentences(self, language: Language, split: Split) -> Iterator[str]:
        """Yield every second sentence."""
        yield from all_sentences(language.code)[0 if split == "calibration" else 1 :: 2]


def all_sentences(code: str) -> list[str]:
    """Return the sentences of one language.

    Raises:
        CorpusError: the corpus lacks the language.
    """
    source = files("mwanda.corpora") / "text" / f"{code}.txt"
    if not source.is_file():
        raise CorpusError(
            f"corpus=embedded has no text in {code}; it has {', '.join(sorted(known()))}; "
            "use corpus=local with corpus.path=FOLDER for other languages"
        )
    return source.read_text(encoding="utf-8").splitlines()
