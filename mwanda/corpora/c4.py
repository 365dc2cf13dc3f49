"""Multilingual C4, web text in about a hundred languages, from the hub."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar

from annotated_types import Gt

from mwanda.corpora.base import Split
from mwanda.corpora.hub import Dataset
from mwanda.errors import CorpusError
from mwanda.languages import Language


@dataclass(frozen=True)
class C4:
    """mC4 (Xue et al., NAACL 2021) in the `allenai/c4` repository: train calibrates, validation evaluates.

    Args:
        path: hub id, or a folder with the same layout.
        revision: commit of the hub repository.
        documents: how many documents of a language and split are read at most.
        drop_overlap: leave calibration lines out that evaluation text holds as well, instead of refusing them.
    """

    name: ClassVar[str] = "c4"
    parallel: ClassVar[bool] = False  # sentence N does not say the same in every language
    path: str = "allenai/c4"
    revision: str | None = None
    documents: Annotated[int, Gt(0)] = 500
    drop_overlap: bool = False

    def has(self, language: Language) -> bool:
        """Return whether there is a configuration of that language."""
        return language.c4 is not None

    def sentences(self, language: Language, split: Split) -> Iterator[str]:
        """Yield documents, each on one line."""
        if language.c4 is None:
            raise CorpusError(f"corpus=c4 has no text in {language.code} that this project knows of; use corpus=local")
        part = "train" if split == "calibration" else "validation"
        documents = self._dataset.texts(language.c4, part, self.documents)
        yield from (" ".join(document.split()) for document in documents)

    @cached_property
    def _dataset(self) -> Dataset:
        return Dataset(self.name, self.path, self.revision)
