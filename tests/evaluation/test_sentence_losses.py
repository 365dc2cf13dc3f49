"""The tidy file of what a model did with each sentence."""

import ast
import json
import math
import textwrap
from dataclasses import asdict
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from mwanda.errors import RecordError
from mwanda.evaluation.sentence_losses import SentenceLosses, read_sentence_losses, write_sentence_losses
from mwanda.system.conf import CONF


MEASURED = {
    "dense": {
        "swh_Latn": SentenceLosses((3, 0), (7, 1), (6, 1), (1.5, 0.0)),
        "arb_Arab": SentenceLosses((2,), (9,), (4,), (1 / 3,)),
    },
    "pruned": {"swh_Latn": SentenceLosses((3, 0), (7, 1), (6, 1), (math.inf, 0.0))},
}


def test_the_file_holds_every_unit_and_gives_it_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "units.parquet"
    write_sentence_losses(path, MEASURED)
    assert read_sentence_losses(path) == MEASURED
    assert [each.name for each in path.parent.iterdir()] == ["units.parquet"]


def test_a_row_is_a_unit_of_a_language_under_a_model(tmp_path: Path) -> None:
    write_sentence_losses(tmp_path / "units.parquet", MEASURED)
    table = pyarrow.parquet.read_table(tmp_path / "units.parquet")
    assert table.column_names == ["language", "unit", "model", "tokens", "bytes", "characters", "nats"]
    assert table.num_rows == 5
    assert table.to_pylist()[1] == {
        "language": "swh_Latn",
        "unit": 1,
        "model": "dense",
        "tokens": 0,
        "bytes": 1,
        "characters": 1,
        "nats": 0.0,
    }


def test_an_interrupted_write_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "units.parquet"
    write_sentence_losses(path, MEASURED)

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="full"):
        write_sentence_losses(path, {"dense": {}})
    assert read_sentence_losses(path) == MEASURED
    assert [each.name for each in tmp_path.iterdir()] == ["units.parquet"]


def test_two_runs_are_compared_as_the_methods_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    losses = {"RUN": (20.0, 25.0, 31.0), "ANOTHER_RUN": (22.0, 27.0, 33.0)}
    text = (CONF.parent / "docs" / "methods.md").read_text(encoding="utf-8")
    lines = text[text.index("    from pathlib import Path\n") :].split("\n\n**", 1)[0]
    for run, nats in losses.items():
        measured = {"pruned": {"swh_Latn": SentenceLosses((10, 10, 10), (30, 30, 30), (30, 30, 30), nats)}}
        write_sentence_losses(tmp_path / run / "units.parquet", measured)
        lines = lines.replace(f'"{run}"', repr(str(tmp_path / run)))
    exec(textwrap.dedent(lines), {})
    printed = ast.literal_eval(capsys.readouterr().out)
    assert printed["swh_Latn"]["log_ratio"] == pytest.approx(0.2)
    assert printed["swh_Latn"]["units"] == 3


def test_units_survive_json() -> None:
    for languages in MEASURED.values():
        for units in languages.values():
            assert SentenceLosses(**json.loads(json.dumps(asdict(units)))) == units
    assert len(SentenceLosses()) == 0


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no table", None])
def test_a_file_that_cannot_be_read_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "units.parquet"
    if content is None:
        pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), path)
    else:
        path.write_bytes(content)
    with pytest.raises(RecordError, match=r"units\.parquet: "):
        read_sentence_losses(path)
