"""FLORES+, the many-language evaluation set, from the hub."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from mwanda.corpora.base import Split
from mwanda.corpora.hub import Dataset
from mwanda.languages import Language


@dataclass(frozen=True)
class FloresPlus:
    """FLORES+ (Open Language Data Initiative): dev calibrates, devtest evaluates. Access is gated on the hub.

    Args:
        path: hub id, or a folder with the same layout.
        revision: commit of the hub repository.
        drop_overlap: leave calibration lines out that evaluation text holds as well, instead of refusing them.
    """

    name: ClassVar[str] = "flores_plus"
    path: str = "openlanguagedata/flores_plus"
    revision: str | None = None
    drop_overlap: bool = False

    def has(self, language: Language) -> bool | None:
        """Return True for what FLORES+ 2.0 has; later versions may have more."""
        return language.flores or None

    def sentences(self, language: Language, split: Split) -> Iterator[str]:
        """Yield the sentences of dev or devtest."""
        part = "dev" if split == "calibration" else "devtest"
        yield from self._dataset.texts(language.code, part)

    @cached_property
    def _dataset(self) -> Dataset:
        return Dataset(self.name, self.path, self.revision)
