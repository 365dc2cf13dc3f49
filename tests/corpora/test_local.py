"""A folder of text: three formats, in halves, and errors that name the file, the line and what to do."""

import json
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mwanda.corpora import local
from mwanda.corpora.base import Split
from mwanda.corpora.local import Local
from mwanda.errors import ConfigurationError, CorpusError
from mwanda.languages import Language, find


GERMAN = Language("deu_Latn", "German", "Indo-European", "Latn")
SENTENCES = ["Guten Morgen.", "Wie geht es dir?", "Es regnet.", "Auf Wiedersehen."]
Writer = Callable[[Path, Sequence[str]], object]


def write_txt(folder: Path, texts: Sequence[str]) -> None:
    """Write a sentence a line."""
    (folder / "deu_Latn.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8", newline="")


def write_jsonl(folder: Path, texts: Sequence[str]) -> None:
    """Write an object a line."""
    lines = [json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(texts)]
    (folder / "deu_Latn.jsonl").write_text("".join(lines), encoding="utf-8")


def write_parquet(folder: Path, texts: Sequence[str | None], file: str = "deu_Latn.parquet") -> None:
    """Write a table with small row groups."""
    table = pyarrow.table({"id": range(len(texts)), "text": pyarrow.array(texts, pyarrow.string())})
    pyarrow.parquet.write_table(table, folder / file, row_group_size=3)


WRITERS: dict[str, Writer] = {"txt": write_txt, "jsonl": write_jsonl, "parquet": write_parquet}


def read(folder: Path, split: Split, **knobs: object) -> list[str]:
    """Return the German sentences of one half."""
    return list(Local(str(folder), **knobs).sentences(GERMAN, split))  # type: ignore[arg-type]


def error_of(folder: Path, **knobs: object) -> str:
    """Return the error of reading, which is one line."""
    with pytest.raises(CorpusError) as caught:
        read(folder, "calibration", **knobs)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("kind", WRITERS)
def test_the_first_half_calibrates_and_the_second_evaluates(tmp_path: Path, kind: str) -> None:
    WRITERS[kind](tmp_path, SENTENCES)
    assert read(tmp_path, "calibration") == SENTENCES[:2]
    assert read(tmp_path, "evaluation") == SENTENCES[2:]


@pytest.mark.parametrize("kind", WRITERS)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\ufeff")), max_size=12))
@settings(max_examples=40, deadline=None)
def test_the_halves_are_all_the_text_once_and_in_order(kind: str, texts: list[str]) -> None:
    texts = [text.replace("\0", "") for text in texts] if kind == "txt" else texts
    expected = [text.strip() for text in texts if text.strip()]
    with TemporaryDirectory() as folder:
        WRITERS[kind](Path(folder), texts)
        if len(expected) < 2:
            assert f"{len(expected)} of at least 2 sentences" in error_of(Path(folder))
            return
        first, second = read(Path(folder), "calibration"), read(Path(folder), "evaluation")
    assert first + second == expected
    assert 0 <= len(second) - len(first) <= 1


@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_a_file_is_not_held_in_memory(tmp_path: Path, kind: str) -> None:
    WRITERS[kind](tmp_path, ["Ein Satz, der sich wiederholt. " * 4] * 20_000)
    tracemalloc.start()
    count = sum(1 for _ in Local(str(tmp_path)).sentences(GERMAN, "calibration"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 10_000
    assert peak < 500_000 < (tmp_path / f"deu_Latn.{kind}").stat().st_size


def test_a_parquet_file_is_not_held_in_memory(tmp_path: Path) -> None:
    texts = [f"Satz {number}, der sich nicht wiederholt. " * 4 for number in range(20_000)]
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "deu_Latn.parquet", row_group_size=1000)
    before = pyarrow.total_allocated_bytes()
    held = [pyarrow.total_allocated_bytes() - before for _ in Local(str(tmp_path)).sentences(GERMAN, "calibration")]
    assert len(held) == 10_000
    assert max(held) < sum(map(len, texts)) // 3


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_file_may_be_named_by_the_language_alone(tmp_path: Path, suffix: str) -> None:
    WRITERS[suffix](tmp_path, SENTENCES)
    (tmp_path / f"deu_Latn.{suffix}").rename(tmp_path / f"deu.{suffix}")
    assert read(tmp_path, "calibration") == SENTENCES[:2]


def test_a_file_named_by_the_whole_code_comes_before_one_named_by_the_language(tmp_path: Path) -> None:
    (tmp_path / "deu.txt").write_text("Sütterlin\nKurrent\n", encoding="utf-8")
    write_parquet(tmp_path, SENTENCES)
    assert read(tmp_path, "calibration") == SENTENCES[:2]


def test_files_says_which_file_is_a_language_s(tmp_path: Path) -> None:
    write_txt(tmp_path, ["Nicht", "diese"])
    write_parquet(tmp_path, SENTENCES, "deu_1996.parquet")
    assert read(tmp_path, "calibration", files={"deu_Latn": "deu_1996"}) == SENTENCES[:2]


def test_files_that_names_no_file_is_not_passed_over(tmp_path: Path) -> None:
    write_txt(tmp_path, SENTENCES)
    assert "has no deu_1901{" in error_of(tmp_path, files={"deu_Latn": "deu_1901"})


def test_a_missing_language_names_similar_files(tmp_path: Path) -> None:
    for file in ("deu_1996.txt", "deu_Latf.jsonl", "deu_notes.md", "eng_Latn.txt"):
        (tmp_path / file).touch()
    message = error_of(tmp_path)
    assert "has no deu_Latn or deu{.txt,.jsonl,.parquet}" in message
    assert "similar: deu_1996.txt, deu_Latf.jsonl (" in message
    assert "corpus.files={deu_Latn: STEM}" in message


def test_a_missing_language_without_similar_files_names_those_that_there_are(tmp_path: Path) -> None:
    for file in ("eng_Latn.txt", "swh_Latn.parquet"):
        (tmp_path / file).touch()
    message = error_of(tmp_path)
    assert "eng_Latn.txt" in message
    assert "swh_Latn.parquet" in message
    assert "corpus.files={deu_Latn: STEM}" in message


@pytest.mark.parametrize(
    ("stem", "code"),
    [
        ("zho_Hans", "cmn_Hans"),
        ("zho", "cmn_Hans"),
        ("zh", "cmn_Hans"),
        ("zh-Hant", "cmn_Hant"),
        ("ara_Arab", "arb_Arab"),
        ("fas_Arab", "pes_Arab"),
        ("msa_Latn", "zsm_Latn"),
        ("swa_Latn", "swh_Latn"),
        ("est_Latn", "ekk_Latn"),
        ("ajp_Arab", "apc_Arab"),
        ("de", "deu_Latn"),
    ],
)
def test_a_file_may_have_another_code_that_stands_for_the_language_alone(tmp_path: Path, stem: str, code: str) -> None:
    (tmp_path / f"{stem}.txt").write_text("a\nb\n")
    (language,) = find([code])
    corpus = Local(str(tmp_path))
    assert corpus.has(language)
    assert list(corpus.sentences(language, "calibration")) == ["a"]


@pytest.mark.parametrize(
    ("stem", "code"),
    [
        ("ara_Arab", "ary_Arab"),
        ("zho_Hant", "yue_Hant"),
        ("fas_Arab", "prs_Arab"),
        ("nor_Latn", "nob_Latn"),
        ("hbs_Cyrl", "srp_Cyrl"),
        ("zho", "cmn_Hant"),
        ("CMN_HANS", "cmn_Hans"),
        ("cmn-Hans", "cmn_Hans"),
    ],
)
def test_a_file_that_may_be_another_language_s_is_named_with_the_way_to_take_it(
    tmp_path: Path, stem: str, code: str
) -> None:
    (tmp_path / f"{stem}.txt").write_text("a\nb\n")
    (language,) = find([code])
    with pytest.raises(CorpusError) as caught:
        list(Local(str(tmp_path)).sentences(language, "calibration"))
    assert f"; similar: {stem}.txt (name one by 'corpus.files={{{code}: STEM}}')" in str(caught.value)


def test_the_language_s_own_code_comes_before_any_other(tmp_path: Path) -> None:
    for stem in ("zh", "zho", "zho_Hans", "cmn", "cmn_Hans"):
        (tmp_path / f"{stem}.txt").write_text(f"{stem}\nb\n")
        (language,) = find(["cmn_Hans"])
        assert list(Local(str(tmp_path)).sentences(language, "calibration")) == [stem]


def test_an_empty_folder_is_said_to_be_empty(tmp_path: Path) -> None:
    assert "no such files at all" in error_of(tmp_path)


def test_a_folder_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"corpus\.path=.*no such folder"):
        Local(str(tmp_path / "none"))


def test_a_folder_may_lie_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "texts").mkdir()
    write_txt(tmp_path / "texts", SENTENCES)
    assert read(Path("~/texts"), "calibration") == SENTENCES[:2]


def test_another_field_can_hold_the_text(tmp_path: Path) -> None:
    lines = [json.dumps({"text": "no", "sentence": sentence}) for sentence in SENTENCES]
    (tmp_path / "deu_Latn.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert read(tmp_path, "evaluation", field="sentence") == SENTENCES[2:]


def test_rows_without_text_are_passed_over(tmp_path: Path) -> None:
    write_parquet(tmp_path, ["Eins.", None, "", "Zwei."])
    assert read(tmp_path, "calibration") + read(tmp_path, "evaluation") == ["Eins.", "Zwei."]
    lines = ['{"text": "Eins."}', "", '{"text": null}', '{"text": "Zwei."}', ""]
    (tmp_path / "deu_Latn.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "deu_Latn.parquet").unlink()
    assert read(tmp_path, "calibration") + read(tmp_path, "evaluation") == ["Eins.", "Zwei."]


@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_line_ends_and_byte_order_mark_of_windows_are_no_text(tmp_path: Path, kind: str) -> None:
    WRITERS[kind](tmp_path, SENTENCES)
    file = tmp_path / f"deu_Latn.{kind}"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert read(tmp_path, "calibration") + read(tmp_path, "evaluation") == SENTENCES


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"text": "Es regnet."', "line 3: not JSON"),
        ('["Es regnet."]', "line 3: not a JSON object"),
        ('{"id": 3, "sentence": "Es regnet."}', "line 3: no 'text' but id, sentence (corpus.field=…)"),
        ('{"text": 3}', "line 3: 'text' is not text"),
        ('{"text": "caf\\ud83d"}', "line 3: '\\ud83d' is half a character"),
        ('{"text": "a", "n": ' + "9" * 5000 + "}", "line 3: JSON that cannot be read (Exceeds the limit"),
        ("[" * 100_000, "line 3: JSON that cannot be read"),
    ],
)
def test_a_bad_line_of_json_is_named_by_its_number(tmp_path: Path, line: str, complaint: str) -> None:
    (tmp_path / "deu_Latn.jsonl").write_text(f'{{"text": "Eins."}}\n\n{line}\n', encoding="utf-8")
    message = error_of(tmp_path)
    assert str(tmp_path / "deu_Latn.jsonl") in message
    assert complaint in message


def test_a_whole_pair_of_surrogates_is_a_character(tmp_path: Path) -> None:
    (tmp_path / "deu_Latn.jsonl").write_text('{"text": "\\ud83d\\ude00"}\n{"text": "b"}\n')
    assert read(tmp_path, "calibration") == ["😀"]


def test_a_text_of_parquet_that_is_not_utf_8_is_named_by_its_row(tmp_path: Path) -> None:
    texts = [b"Guten Morgen."] * 2000 + [b"Sch\xf6ne Gr\xfc\xdfe."]
    column = pyarrow.array(texts, pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), tmp_path / "deu_Latn.parquet", row_group_size=700)
    assert "deu_Latn.parquet, row 2001: not UTF-8" in error_of(tmp_path)


def test_a_column_of_parquet_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    column = pyarrow.array(SENTENCES)
    table = pyarrow.Table.from_arrays([column, column], names=["text", "text"])
    pyarrow.parquet.write_table(table, tmp_path / "deu_Latn.parquet")
    assert "'text' is there more than once" in error_of(tmp_path)


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_parquet_file_whose_pages_are_damaged_is_named(tmp_path: Path, part: float) -> None:
    file = tmp_path / "deu_Latn.parquet"
    texts = [f"Satz {number}." for number in range(5000)]
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), file, use_dictionary=False)
    content = bytearray(file.read_bytes())
    begin = int(part * (len(content) - 2000))
    content[begin : begin + 400] = b"\xff" * 400
    file.write_bytes(content)
    assert str(file) in error_of(tmp_path)


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_folder_or_a_link_to_nothing_in_place_of_a_file_is_named(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"deu_Latn.{suffix}").mkdir()
    assert f"deu_Latn.{suffix} is no file, but a folder" in error_of(tmp_path)
    (tmp_path / f"deu_Latn.{suffix}").rmdir()
    (tmp_path / f"deu_Latn.{suffix}").symlink_to(tmp_path / "nothing")
    assert f"deu_Latn.{suffix} is no file" in error_of(tmp_path)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_that_the_system_does_not_give_is_named(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS[kind](tmp_path, SENTENCES)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(pyarrow.parquet, "ParquetFile", refuse)
    assert error_of(tmp_path) == f"{tmp_path / f'deu_Latn.{kind}'} cannot be read (Permission denied)"


@pytest.mark.parametrize("path", ["~nobody-of-that-name/texts", "a" * 5000, "a\0b", ""])
def test_a_path_that_no_system_can_hold_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match=r"corpus\.path="):
        Local(path if path else "nothing here")


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    write_txt(tmp_path, SENTENCES)
    with pytest.raises(ConfigurationError, match=r"corpus\.path=.*no such folder"):
        Local(str(tmp_path / "deu_Latn.txt"))


def test_a_missing_column_of_parquet_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    write_parquet(tmp_path, SENTENCES)
    assert "no 'sentence' but id, text (corpus.field=…)" in error_of(tmp_path, field="sentence")


def test_a_column_of_parquet_that_is_not_text_is_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path, SENTENCES)
    assert "'id' is not text" in error_of(tmp_path, field="id")


def test_a_dictionary_encoded_column_is_text(tmp_path: Path) -> None:
    table = pyarrow.table({"text": pyarrow.array(SENTENCES).dictionary_encode()})
    pyarrow.parquet.write_table(table, tmp_path / "deu_Latn.parquet")
    assert read(tmp_path, "calibration") == SENTENCES[:2]


def test_a_file_that_is_not_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "deu_Latn.parquet").write_text("Guten Morgen.\n" * 9, encoding="utf-8")
    assert "deu_Latn.parquet is not a parquet file" in error_of(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_text_of_two_or_four_bytes_a_letter_is_told_by_its_nuls(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "deu_Latn.txt").write_bytes("Guten Morgen.\nAbend.\n".encode(encoding))
    assert "deu_Latn.txt, line 1: holds NUL, as UTF-16" in error_of(tmp_path)


def test_byte_order_marks_within_a_file_that_was_joined_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "deu_Latn.txt").write_text("\ufeffeins\n\ufeffzwei\n", encoding="utf-8")
    assert read(tmp_path, "calibration") + read(tmp_path, "evaluation") == ["eins", "zwei"]


@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_a_line_that_is_no_line_is_refused_before_it_is_read(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "LONGEST_LINE", 100)
    WRITERS[kind](tmp_path, ["a", "b" * 101, "c"])
    assert f"deu_Latn.{kind}, line 2: longer than 100 bytes" in error_of(tmp_path)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_text_that_is_not_utf_8_is_named_by_its_line(tmp_path: Path, encoding: str) -> None:
    # Far enough into the file that a decoder that reads ahead would report another place.
    text = "Guten Morgen.\n" * 2000 + "Schöne Grüße.\n"
    (tmp_path / "deu_Latn.txt").write_bytes(text.encode(encoding))
    line = 1 if encoding == "utf-16" else 2001
    assert f"deu_Latn.txt, line {line}: not UTF-8" in error_of(tmp_path)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("texts", [[], ["  "], ["Nur einer."]])
def test_a_file_too_short_to_be_halved_is_an_error(tmp_path: Path, kind: str, texts: list[str]) -> None:
    WRITERS[kind](tmp_path, texts)
    message = error_of(tmp_path)
    assert f"deu_Latn.{kind}" in message
    assert "holds too little text" in message
