"""Exports appear whole or not at all."""

from pathlib import Path

import pytest

from mwanda.export.base import write_atomically


def test_a_file_is_put_in_place(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "file", lambda path: _write(path, "content"))
    assert (tmp_path / "a" / "file").read_text() == "content"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()

    def make(path: Path) -> None:
        path.mkdir()
        (path / "new").touch()

    write_atomically(target, make)
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_fails_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def fail(path: Path) -> None:
        _write(path, "half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(target, fail)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def _write(path: Path, text: str) -> None:
    path.write_text(text)
