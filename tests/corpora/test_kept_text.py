"""Text of the hub that was kept here and is damaged since."""

import json
from pathlib import Path

import pytest

from mwanda.corpora.flores_plus import FloresPlus
from mwanda.errors import CorpusError
from mwanda.languages import find
from mwanda.system.cache import cache_folder


COMMIT = "0123456789" * 4
(ENGLISH,) = find(["eng_Latn"])


def kept(content: bytes) -> Path:
    file = cache_folder() / "corpora" / "org--kept" / COMMIT / "eng_Latn.dev.all.jsonl"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    return file


def read() -> list[str]:
    return list(FloresPlus("org/kept", COMMIT).sentences(ENGLISH, "calibration"))


def test_what_was_kept_is_read() -> None:
    kept(b'"one"\n"two \\ud83d\\ude00"\n')
    assert read() == ["one", "two 😀"]


@pytest.mark.parametrize(
    "content",
    [b'"one"\n"tw', b'"one"\n\xff\xfe\n', b'{"text": 1}\n', b'"one"\n\n', b'"' + b"9" * 5000],
    ids=["cut", "not UTF-8", "not a text", "an empty line", "not closed"],
)
def test_damaged_text_is_named_with_what_to_do(content: bytes) -> None:
    file = kept(content)
    with pytest.raises(CorpusError) as caught:
        read()
    assert f"the text that was kept in {file} is damaged (" in str(caught.value)
    assert str(caught.value).endswith("; remove that file")
    assert "\n" not in str(caught.value)


def test_half_a_character_is_named_by_its_line() -> None:
    file = kept((json.dumps("one") + "\n" + json.dumps("\ud83d") + "\n").encode())
    with pytest.raises(CorpusError, match=r"line 2: .* is half a character"):
        read()
    assert file.is_file()
