"""What the corpora from the Hugging Face hub share: pinned, fetched once, and with errors that say what to do."""

import json
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from mwanda.corpora.base import sound
from mwanda.errors import CorpusError, nearest_choices
from mwanda.system import hub
from mwanda.system.cache import cache_folder
from mwanda.system.files import atomic
from mwanda.system.hub import HubError, UnreachableError


CARD = "README.md"
COLUMN = "text"
COMMIT = re.compile("[0-9a-f]{40}")
WITHOUT_HUB = "without a hub these work: corpus=embedded, or corpus=local corpus.path=FOLDER"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """A dataset with one configuration for each language.

    Args:
        corpus: the name that the user types.
        path: hub id, or a folder with the same layout.
        revision: branch, tag or commit of the hub repository; ignored for a folder.
    """

    corpus: str
    path: str
    revision: str | None = None

    def texts(self, configuration: str, split: str, limit: int | None = None) -> Iterator[str]:
        """Yield up to `limit` texts; those of the hub are kept, so that they can be had when it is off.

        Raises:
            CorpusError: the hub cannot be reached, asks for access, or has no such configuration or split.
        """
        folder = Path(self.path).expanduser()
        if folder.is_dir():
            yield from self._stream(str(folder), configuration, split, None, limit)
            return
        file = f"{configuration}.{split}.{limit or 'all'}.jsonl"
        commit = self._commit(file)
        kept = self._kept / commit / file
        if not kept.is_file():
            logger.info("corpus=%s: fetching %s, %s", self.corpus, configuration, split)
            texts = self._stream(self.path, configuration, split, commit, limit)
            _write(kept, (json.dumps(text) + "\n" for text in texts))
        yield from self._read(kept)

    def _read(self, kept: Path) -> Iterator[str]:
        try:
            with kept.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    text = json.loads(line)
                    if not isinstance(text, str):
                        raise ValueError("not a text")
                    yield sound(text, f"corpus={self.corpus}: {kept}, line {number}")
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:160]
            raise CorpusError(
                f"corpus={self.corpus}: the text that was kept in {kept} is damaged ({reason}); remove that file"
            ) from None

    @property
    def _kept(self) -> Path:
        return cache_folder() / "corpora" / self.path.replace("/", "--")

    @property
    def _reference(self) -> Path:
        """The file that says which commit the branch was at when the hub was last asked."""
        return self._kept / "refs" / (self.revision or "main")

    @cached_property
    def _answer(self) -> str | HubError:
        """The commit that the hub serves, or why it serves none; asked once, so that languages share a commit."""
        try:
            commit = hub.find("dataset", self.path, self.revision, CARD)
        except HubError as problem:
            return problem
        _write(self._reference, [commit])
        return commit

    def _commit(self, file: str) -> str:
        """Return the commit to read `file` from; where the hub says none, one that it was kept from before."""
        if self.revision and COMMIT.fullmatch(self.revision) and (self._kept / self.revision / file).is_file():
            return self.revision
        if isinstance(self._answer, str):
            return self._answer
        known = self._reference.read_text(encoding="utf-8") if self._reference.is_file() else ""
        if known and (self._kept / known / file).is_file():
            logger.warning("corpus=%s: taking the text that was kept: %s", self.corpus, self._answer)
            return known
        reason = str(self._answer)
        if isinstance(self._answer, UnreachableError):
            reason = f"this part of it was not kept here before, and {reason}; {WITHOUT_HUB}"
        raise CorpusError(f"corpus={self.corpus} ({self.path}): {reason}") from self._answer

    def _stream(
        self, path: str, configuration: str, split: str, commit: str | None, limit: int | None
    ) -> Iterator[str]:
        from datasets import load_dataset

        try:
            rows: Any = load_dataset(path, configuration, split=split, revision=commit, streaming=True)
            texts = (_text(row[COLUMN]) for row in rows if row[COLUMN] is not None)
            for text in islice(filter(None, texts), limit):
                yield sound(text, f"{configuration}, {split}")
        except Exception as error:
            # datasets raises a dozen unrelated types for the same few causes.
            reason = _explain(error, path, configuration, split, commit)
            raise CorpusError(f"corpus={self.corpus} ({self.path}): {reason}") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"'{COLUMN}' holds {type(value).__name__}, not text")
    return value.strip()


def _explain(error: Exception, path: str, configuration: str, split: str, commit: str | None) -> str:
    if isinstance(error, KeyError):
        return f"its rows have no column {error}"
    names = _configurations(path, commit) if isinstance(error, ValueError) else []
    if names and configuration not in names:
        return f"it has no text in '{configuration}'; it has {', '.join(nearest_choices(configuration, names))}"
    first_line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{configuration}, {split} could not be read ({type(error).__name__}: {first_line[:160]}); {WITHOUT_HUB}"


def _configurations(path: str, commit: str | None) -> list[str]:
    from datasets import get_dataset_config_names

    try:
        return list(get_dataset_config_names(path, revision=commit))
    except Exception:
        return []


def _write(file: Path, pieces: Iterable[str]) -> None:
    """Write all or nothing, so that a transfer that broke off is never taken for the whole."""
    with atomic(file) as unfinished, unfinished.open("w", encoding="utf-8") as stream:
        stream.writelines(pieces)
