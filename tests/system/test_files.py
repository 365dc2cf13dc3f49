"""Files and folders appear whole or not at all."""

from pathlib import Path

import pytest

from mwanda.system.files import atomic


def test_a_file_is_put_in_place(tmp_path: Path) -> None:
    with atomic(tmp_path / "a" / "file") as path:
        path.write_text("content")
    assert (tmp_path / "a" / "file").read_text() == "content"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    with atomic(target) as path:
        path.mkdir()
        (path / "new").touch()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_fails_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(OSError, match="disk full"), atomic(target) as path:
        path.write_text("half")
        raise OSError("disk full")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_was_made_can_say_its_own_name(tmp_path: Path) -> None:
    with atomic(tmp_path / "new", lambda made: made.read_text()) as path:
        path.write_text("mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o644
