"""Files and folders appear whole or not at all."""

import errno
from pathlib import Path

import pytest
from safetensors import SafetensorError

from mwanda.system.files import atomic, disk_problem
from mwanda.system.ownership import MADE, ForeignError


def test_a_file_is_put_in_place(tmp_path: Path) -> None:
    with atomic(tmp_path / "a" / "file") as path:
        path.write_text("content")
    assert (tmp_path / "a" / "file").read_text() == "content"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for name in ("old", "new"):
        with atomic(target) as path:
            path.mkdir()
            (path / name).touch()
    assert {path.name for path in target.iterdir()} == {"new", MADE}
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


def test_a_folder_of_the_users_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "mine").write_text("precious")
    with pytest.raises(ForeignError, match="holds mine, which no run has made"), atomic(target) as path:
        path.mkdir()
    assert (target / "mine").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_of_ours_with_something_of_the_users_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with atomic(target) as path:
        path.mkdir()
        (path / "ours").touch()
    (target / "sub").mkdir()
    (target / "sub" / "mine").write_text("precious")
    with pytest.raises(ForeignError, match="holds sub/mine"), atomic(target) as path:
        path.mkdir()
    assert (target / "sub" / "mine").read_text() == "precious"


def test_everything_in_a_folder_can_be_read_by_all(tmp_path: Path) -> None:
    with atomic(tmp_path / "model") as path:
        (path / "sub").mkdir(parents=True)
        for name in ("a", "sub/b"):
            (path / name).touch(mode=0o600)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").rglob("*")}
    assert modes == {"a": 0o644, MADE: 0o644, "sub": 0o755, "b": 0o644}
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x"), "/x: No space left on device"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
        (SafetensorError("Error while serializing: I/O error: No space left (os error 28)"), "No space left on device"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/x"), None),
        (ValueError("(os error 28)"), None),
    ],
    ids=str,
)
def test_what_the_disk_does_not_allow_is_told_from_what_is_wrong(error: Exception, expected: str | None) -> None:
    assert disk_problem(error) == expected
