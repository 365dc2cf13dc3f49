"""Nothing is removed but what this project has made, and names from files stay in their folder."""

import os
import time
from pathlib import Path

import pytest

from mwanda.system.files import atomic
from mwanda.system.ownership import ABANDONED, UNFINISHED, named, plain_name, remove_own, remove_unfinished


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/a", "..\\a", "a\0b", None, 3, ["a"]])
def test_a_name_that_leaves_its_folder_is_refused(name: object) -> None:
    with pytest.raises(ValueError, match="is no plain file name"):
        plain_name(name)


def test_a_plain_name_is_taken() -> None:
    assert plain_name("..a b.safetensors") == "..a b.safetensors"


def test_only_names_of_ours_go(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").touch()
    folder = tmp_path / "weights"
    (folder / "block-1x").mkdir(parents=True)
    for name in ("block-1", "block-10", "notes.txt", f".a.{UNFINISHED}"):
        (folder / name).touch()
    (folder / "block-2").symlink_to(outside)
    remove_own(folder, [r"block-\d"])
    assert {path.name for path in folder.iterdir()} == {"block-1x", "block-10", "notes.txt"}
    assert (outside / "mine").exists()


def test_an_empty_folder_goes_and_a_link_stays(tmp_path: Path) -> None:
    folder, link = tmp_path / "weights", tmp_path / "link"
    folder.mkdir()
    (folder / "block-1").touch()
    link.symlink_to(folder)
    remove_own(link, [r"block-\d"])
    assert (folder / "block-1").exists()
    remove_own(folder, [r"block-\d"])
    assert not folder.exists()
    remove_own(folder, [r"block-\d"])


def test_what_a_killed_process_left_goes_where_nobody_can_be_at_work(tmp_path: Path) -> None:
    for name in (f".results.json.x{UNFINISHED}", ".results.json.x", f"results.json{UNFINISHED}"):
        (tmp_path / name).mkdir()
    (tmp_path / f".status.json.host.7{UNFINISHED}").touch()
    remove_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".results.json.x", f"results.json{UNFINISHED}"}


def test_in_a_folder_of_several_it_goes_after_a_day(tmp_path: Path) -> None:
    old, new = tmp_path / f".a.old{UNFINISHED}", tmp_path / f".a.new{UNFINISHED}"
    for each in (old, new):
        each.mkdir()
        (each / "half").touch()
    os.utime(old, (time.time() - ABANDONED - 60,) * 2)
    with atomic(tmp_path / "b") as path:
        path.touch()
    assert {path.name for path in tmp_path.iterdir()} == {new.name, "b"}


def test_few_of_many_names_are_said() -> None:
    assert named(["a", "b"]) == "a, b"
    assert named(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
