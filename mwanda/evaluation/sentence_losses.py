"""Per-sentence losses, the observations of all intervals and tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mwanda.errors import RecordError


FILE = "units.parquet"
"""Stands beside results.json, so that every interval and test can be made again."""

SERIES = ("tokens", "bytes", "characters", "nats")


@dataclass(frozen=True)
class SentenceLosses:
    """The losses on one language's sentences, in the order of the text.

    Args:
        tokens: scored tokens of each sentence.
        bytes: UTF-8 bytes that these tokens stand for.
        characters: Unicode characters (code points) that they stand for.
        nats: the sum of their losses, natural logarithm; infinite where the model finds it impossible.
    """

    tokens: tuple[int, ...] = ()
    bytes: tuple[int, ...] = ()
    characters: tuple[int, ...] = ()
    nats: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for one in fields(self):  # JSON knows no tuples
            object.__setattr__(self, one.name, tuple(getattr(self, one.name)))

    def __len__(self) -> int:
        return len(self.tokens)


def write_sentence_losses(path: Path, measured: Mapping[str, Mapping[str, SentenceLosses]]) -> None:
    """Write a tidy Parquet file, whole or not at all: language, unit, model, tokens, bytes, characters, nats.

    Args:
        path: of the file.
        measured: by model (`dense`, `pruned`), then by language.
    """
    from mwanda.system.files import write_table

    columns: dict[str, list[Any]] = {"language": [], "unit": [], "model": []}
    columns |= {series: [] for series in SERIES}
    for model, languages in measured.items():
        for code, units in languages.items():
            columns["language"] += [code] * len(units)
            columns["unit"] += range(len(units))
            columns["model"] += [model] * len(units)
            for series in SERIES:
                columns[series] += getattr(units, series)
    write_table(path, columns)


def read_sentence_losses(path: Path) -> dict[str, dict[str, SentenceLosses]]:
    """Return what `write_sentence_losses` wrote, by model (`dense`, `pruned`) and language.

    It is how intervals and tests are made again, or made between two runs; see docs/methods.md.

    Raises:
        RecordError: the file cannot be read, or is another one.
    """
    from pyarrow import ArrowException, parquet

    columns = ["language", "model", *SERIES]
    try:
        rows: Sequence[Mapping[str, object]] = parquet.read_table(path, columns=columns).to_pylist()
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: cannot be read ({' '.join(str(error).split())[:160]})") from None
    if rows and set(rows[0]) != set(columns):
        raise RecordError(f"{path}: has not the columns {', '.join(columns)}")
    found: dict[str, dict[str, dict[str, list]]] = {}
    for row in rows:
        languages = found.setdefault(str(row["model"]), {})
        lists = languages.setdefault(str(row["language"]), {series: [] for series in SERIES})
        for series in SERIES:
            lists[series].append(row[series])
    return {
        model: {
            code: SentenceLosses(**{series: tuple(lists[series]) for series in SERIES})
            for code, lists in languages.items()
        }
        for model, languages in found.items()
    }
