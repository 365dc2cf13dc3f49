"""Digests of files: large ones are remembered, and forgotten when the file changes."""

import hashlib
import os
from pathlib import Path

import pytest

from mwanda.system import content
from mwanda.system.cache import cache_folder


@pytest.fixture(autouse=True)
def _forget() -> None:
    content.remembered_digest.cache_clear()


def test_a_digest_is_the_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"some")
    assert content.file_digest(tmp_path / "file") == hashlib.sha256(b"some").hexdigest()
    assert not cache_folder().exists()


def test_a_large_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, reads = tmp_path / "file", []
    read = content.sha256_of
    monkeypatch.setattr(content, "sha256_of", lambda path: reads.append(path) or read(path))
    file.write_bytes(b"a" * content.SMALL)
    first = content.file_digest(file)
    for _ in range(2):
        content.remembered_digest.cache_clear()  # as in another process
        assert content.file_digest(file) == first
    assert len(reads) == 1
    file.write_bytes(b"b" * content.SMALL)
    os.utime(file, ns=(1, 1))
    assert content.file_digest(file) == hashlib.sha256(b"b" * content.SMALL).hexdigest()


def test_a_note_that_is_damaged_is_not_believed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"a" * content.SMALL)
    first = content.file_digest(file)
    (note,) = (cache_folder() / "digests").iterdir()
    for damage in ("", "[]", "{}", '{"state": null, "sha256": "0"}'):
        note.write_text(damage)
        content.remembered_digest.cache_clear()
        assert content.file_digest(file) == first


def test_a_folder_is_the_names_and_contents_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1")
    (tmp_path / "b.json").write_text("2")
    whole, part = content.folder_digest(tmp_path), content.folder_digest(tmp_path, (".txt",))
    (tmp_path / "b.json").rename(tmp_path / "c.json")
    assert content.folder_digest(tmp_path) != whole
    assert content.folder_digest(tmp_path, (".txt",)) == part
    (tmp_path / "folder").mkdir()
    assert content.folder_digest(tmp_path, (".txt",)) == part
