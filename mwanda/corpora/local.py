"""A folder of text files, one file a language."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mwanda.corpora.base import Split, sound
from mwanda.errors import ConfigurationError, CorpusError, nearest_choices
from mwanda.languages import Language
from mwanda.languages.other_codes import macrolanguage, macrolanguage_by_tag, other_codes


if TYPE_CHECKING:
    import pyarrow


FORMATS = (".txt", ".jsonl", ".parquet")
BYTE_ORDER_MARK = "\ufeff"
ROWS_AT_ONCE = 1024
SIMILAR = 12
LONGEST_LINE = 1 << 24
"""Bytes of a line above which the file is no text of lines: whole files of other kinds have no line break at all."""


@dataclass(frozen=True)
class Local:
    """Text from `CODE.txt` (a sentence a line), `CODE.jsonl` or `CODE.parquet`, streamed.

    `CODE` is the FLORES+ code, its key in the Universal Declaration of Human Rights (`deu_1996`), its ISO 639-3 part,
    another code that stands for this language alone (`zho_Hans` for `cmn_Hans`), its tag of the web (`de`), or what
    `files` says. The first half of a file calibrates and the second half evaluates, so that neighbouring sentences of
    one document do not end up on both sides.

    Args:
        path: the folder.
        field: the column of .jsonl and .parquet files that holds the text.
        files: file stems for codes whose file has another name, e.g. `{deu_Latn: deu_1996}`.
        drop_overlap: leave calibration lines out that evaluation text holds as well, instead of refusing them.

    Raises:
        ConfigurationError: the folder does not exist, or cannot be read.
    """

    name: ClassVar[str] = "local"
    path: str
    field: str = "text"
    files: Mapping[str, str] | None = None
    drop_overlap: bool = False

    def __post_init__(self) -> None:
        try:
            there = self._folder.is_dir()
            if there:
                next(self._folder.iterdir(), None)
        except (OSError, RuntimeError, ValueError) as error:  # a home folder that there is not, a NUL in the name
            reason = f"cannot be read ({getattr(error, 'strerror', None) or error})"
            raise ConfigurationError("corpus.path", self.path, reason) from None
        if not there:
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

    @property
    def _folder(self) -> Path:
        return Path(self.path).expanduser()

    def _file(self, language: Language) -> Path:
        found = self._find(language)
        if found is not None:
            return found
        stems = [stem for stem in self._stems(language) if stem not in language.udhr or stem == language.iso_639_3]
        for stem in stems:
            for suffix in FORMATS:
                place = self._folder / f"{stem}{suffix}"
                if place.is_dir() or place.is_symlink() or place.exists():
                    raise CorpusError(f"{place} is no file, but a folder, a pipe, or a link to nothing")
        names = f"{', '.join(stems[:-1])} or {stems[-1]}" if len(stems) > 1 else stems[0]
        similar = _similar(self._folder, language, stems)
        raise CorpusError(f"corpus.path={self.path} has no {names}{{{','.join(FORMATS)}}}{similar}")

    def _find(self, language: Language) -> Path | None:
        files = (self._folder / f"{stem}{suffix}" for stem in self._stems(language) for suffix in FORMATS)
        try:
            return next((file for file in files if file.is_file()), None)
        except OSError as error:
            raise CorpusError(f"corpus.path={self.path} cannot be read ({error.strerror})") from None

    def _stems(self, language: Language) -> list[str]:
        named = (self.files or {}).get(language.code)
        if named:
            return [named]
        stems = [language.code, *language.udhr, language.iso_639_3, *other_codes(language)]
        tag = language.bcp_47
        if tag is not None:
            macro = macrolanguage_by_tag(language) if "-" not in tag else None
            stems += [*([macro] if macro else []), tag]
        return list(dict.fromkeys(stems))

    def _read(self, file: Path) -> Iterator[str]:
        lines = {".txt": _read_text, ".jsonl": self._read_jsonl, ".parquet": self._read_parquet}[file.suffix](file)
        try:
            for where, line in lines:
                text = line.strip()
                if text:
                    yield sound(text, f"{file}, {where}")
        except OSError as error:  # also while it is read: a disk that fails, a share that is gone
            raise CorpusError(f"{file} cannot be read ({error.strerror or error})") from None

    def _read_jsonl(self, file: Path) -> Iterator[tuple[str, str]]:
        for where, line in _read_text(file):
            if line.strip():
                yield where, self._text_of(line, f"{file}, {where}")

    def _text_of(self, line: str, where: str) -> str:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise CorpusError(f"{where}: not JSON ({error.msg} at column {error.colno})") from None
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
            raise CorpusError(f"{where}: JSON that cannot be read ({error})") from None
        if not isinstance(row, dict):
            raise CorpusError(f"{where}: not a JSON object")
        if self.field not in row:
            raise CorpusError(f"{where}: {self._missing(row)}")
        text = row[self.field]
        if not isinstance(text, str | None):
            raise CorpusError(f"{where}: '{self.field}' is not text (corpus.field=…)")
        return text or ""

    def _read_parquet(self, file: Path) -> Iterator[tuple[str, str]]:
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(file) as table:
                columns, row = table.schema_arrow, 0
                if self.field not in columns.names:
                    raise CorpusError(f"{file}: {self._missing(columns.names)}")
                if columns.names.count(self.field) > 1:
                    raise CorpusError(f"{file}: '{self.field}' is there more than once (corpus.field=…)")
                if not _is_text(columns.field(self.field).type):
                    raise CorpusError(f"{file}: '{self.field}' is not text (corpus.field=…)")
                for batch in table.iter_batches(ROWS_AT_ONCE, columns=[self.field]):
                    for value in _values(batch.column(0), file, row):
                        row += 1
                        if value is not None:
                            yield f"row {row}", value
        except (pyarrow.ArrowException, OSError) as error:
            # Arrow tells a broken file by some of its own types, and by an OSError without a number.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CorpusError(f"{file} is not a parquet file ({reason})") from None

    def _missing(self, names: Iterable[str]) -> str:
        return f"no '{self.field}' but {', '.join(names) or 'nothing'} (corpus.field=…)"


def _read_text(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines of a file with their numbers."""
    with file.open("rb") as stream:
        for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE + 1), b""), 1):
            where = f"line {number}"
            if len(line) > LONGEST_LINE:
                raise CorpusError(f"{file}, {where}: longer than {LONGEST_LINE:,} bytes; write a sentence a line")
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise CorpusError(f"{file}, {where}: not UTF-8 ({error.reason}); convert the file") from None
            if "\0" in text:
                raise CorpusError(f"{file}, {where}: holds NUL, as UTF-16 or a binary file does; convert the file")
            yield where, text.removeprefix(BYTE_ORDER_MARK)  # also where files were joined


def _values(column: "pyarrow.Array", file: Path, before: int) -> list[str | None]:
    """Return the values of a column of text, `before` rows of which have been read.

    Raises:
        CorpusError: one is no UTF-8.
    """
    try:
        values: list[str | None] = column.to_pylist()
        return values
    except UnicodeDecodeError as error:
        row = before + next(number for number, value in enumerate(column, 1) if not _decodes(value))
        raise CorpusError(f"{file}, row {row}: not UTF-8 ({error.reason}); convert the file") from None


def _decodes(value: Any) -> bool:
    try:
        value.as_py()
    except UnicodeDecodeError:
        return False
    return True


def _is_text(kind: "pyarrow.DataType") -> bool:
    from pyarrow import types

    value = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(value) or types.is_large_string(value) or types.is_string_view(value))


def _similar(folder: Path, language: Language, stems: Iterable[str]) -> str:
    """Return what the folder holds instead, files first that may be meant."""
    names = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in FORMATS)
    starts = tuple(filter(None, (language.iso_639_3, macrolanguage(language.iso_639_3))))
    alike = {_plain(stem) for stem in stems}
    similar = [name for name in names if name.lower().startswith(starts) or _plain(Path(name).stem) in alike]
    way = f" (name one by 'corpus.files={{{language.code}: STEM}}')"
    if similar:
        return f"; similar: {', '.join(similar[:SIMILAR])}{way}"
    if names:
        return f"; it has {', '.join(nearest_choices(language.code, names))}{way}"
    return f"; it has no such files at all{way}"


def _plain(stem: str) -> str:
    return stem.lower().replace("-", "_")
