"""A folder of text files, one file a language."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mwanda.corpora.base import Split
from mwanda.errors import ConfigurationError, CorpusError, nearest_choices
from mwanda.languages import Language


if TYPE_CHECKING:
    import pyarrow


FORMATS = (".txt", ".jsonl", ".parquet")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Local:
    """Text from `CODE.txt` (a sentence a line), `CODE.jsonl` or `CODE.parquet`, streamed.

    `CODE` is the FLORES+ code, its key in the Universal Declaration of Human Rights (`deu_1996`), its ISO 639-3 part,
    or what `files` says. The first half of a file calibrates and
    the second half evaluates, so that neighbouring sentences of one document do not end up on both sides.

    Args:
        path: the folder.
        field: the column of .jsonl and .parquet files that holds the text.
        files: file stems for codes whose file has another name, e.g. `{deu_Latn: deu_1996}`.

    Raises:
        ConfigurationError: the folder does not exist.
    """

    name: ClassVar[str] = "local"
    path: str
    field: str = "text"
    files: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if not Path(self.path).expanduser().is_dir():
            raise ConfigurationError("corpus.path", self.path, "there is no such folder")

    def has(self, language: Language) -> bool:
        """Return whether the folder holds a file of the language."""
        return self._find(language) is not None

    def sentences(self, language: Language, split: Split) -> Iterator[str]:
        """Yield one half of the language's file."""
        file = self._file(language)
        count = sum(1 for _ in self._read(file))
        if count < 2:
            raise CorpusError(
                f"{file} holds too little text: {count} of at least 2 sentences, to calibrate and to evaluate"
            )
        half = count // 2
        if split == "calibration":
            yield from islice(self._read(file), half)
        else:
            yield from islice(self._read(file), half, None)

    def _file(self, language: Language) -> Path:
        found = self._find(language)
        if found is not None:
            return found
        stems = [stem for stem in self._stems(language) if stem not in language.udhr or stem == language.iso_639_3]
        similar = _similar(Path(self.path).expanduser(), language)
        raise CorpusError(f"corpus.path={self.path} has no {' or '.join(stems)}{{{','.join(FORMATS)}}}{similar}")

    def _find(self, language: Language) -> Path | None:
        folder = Path(self.path).expanduser()
        files = (folder / f"{stem}{suffix}" for stem in self._stems(language) for suffix in FORMATS)
        return next((file for file in files if file.is_file()), None)

    def _stems(self, language: Language) -> list[str]:
        named = (self.files or {}).get(language.code)
        return [named] if named else list(dict.fromkeys([language.code, *language.udhr, language.iso_639_3]))

    def _read(self, file: Path) -> Iterator[str]:
        lines = {".txt": _read_text, ".jsonl": self._read_jsonl, ".parquet": self._read_parquet}[file.suffix](file)
        return (line.strip() for line in lines if line.strip())

    def _read_jsonl(self, file: Path) -> Iterator[str]:
        for number, line in enumerate(_read_text(file), 1):
            if line.strip():
                yield self._text_of(line, f"{file}, line {number}")

    def _text_of(self, line: str, where: str) -> str:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise CorpusError(f"{where}: not JSON ({error.msg} at column {error.colno})") from None
        if not isinstance(row, dict):
            raise CorpusError(f"{where}: not a JSON object")
        if self.field not in row:
            raise CorpusError(f"{where}: {self._missing(row)}")
        text = row[self.field]
        if not isinstance(text, str | None):
            raise CorpusError(f"{where}: '{self.field}' is not text (corpus.field=…)")
        return text or ""

    def _read_parquet(self, file: Path) -> Iterator[str]:
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(file) as table:
                columns = table.schema_arrow
                if self.field not in columns.names:
                    raise CorpusError(f"{file}: {self._missing(columns.names)}")
                if not _is_text(columns.field(self.field).type):
                    raise CorpusError(f"{file}: '{self.field}' is not text (corpus.field=…)")
                for batch in table.iter_batches(ROWS_AT_ONCE, columns=[self.field]):
                    yield from (value for value in batch.column(0).to_pylist() if value is not None)
        except pyarrow.ArrowInvalid as error:
            raise CorpusError(f"{file} is not a parquet file ({str(error).splitlines()[0]})") from None

    def _missing(self, names: Iterable[str]) -> str:
        return f"no '{self.field}' but {', '.join(names) or 'nothing'} (corpus.field=…)"


def _read_text(file: Path) -> Iterator[str]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                yield line.removeprefix(BYTE_ORDER_MARK if number == 1 else b"").decode()
            except UnicodeDecodeError as error:
                raise CorpusError(f"{file}, line {number}: not UTF-8 ({error.reason}); convert the file") from None


def _is_text(kind: "pyarrow.DataType") -> bool:
    from pyarrow import types

    value = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(value) or types.is_large_string(value) or types.is_string_view(value))


def _similar(folder: Path, language: Language) -> str:
    names = sorted(file.name for file in folder.iterdir() if file.suffix in FORMATS)
    similar = [name for name in names if name.startswith(language.code[:3])]
    if similar:
        return f"; similar: {', '.join(similar)} (name one by 'corpus.files={{{language.code}: STEM}}')"
    return f"; it has {', '.join(nearest_choices(language.code, names)) or 'no such files at all'}"
