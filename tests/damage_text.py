"""Damaged texts and damaged run folders, and what the command line makes of them.

`TEXTS` are ways to spoil a corpus folder, `RUNS` ways to spoil the folder of a finished run. `try_text` and `try_run`
put one of them through the real command line, each in a process of its own, forked from this one:

    a text is right   when it ends in one line of error, exit 2 and nothing left, or is read, where it is harmless
    a run is right    when comparison and status show the other runs, and name it where nothing of it can be shown
"""

import gzip
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow
import pyarrow.parquet
import yaml
from typed import run


CODES = ("eng_Latn", "swh_Latn")
SPOILT = "swh_Latn"
ENGLISH = [f"The river rose on day {number}, and nobody in the village slept." for number in range(60)]
SWAHILI = [f"Mto ulijaa siku ya {number}, na hakuna mtu kijijini aliyelala." for number in range(60)]

Spoil = Callable[[Path], object]


@dataclass(frozen=True)
class Damage:
    """One way to spoil a folder.

    Args:
        spoil: does it.
        told: what the error says besides; None where the damage is harmless and everything goes on.
    """

    spoil: Spoil
    told: str | None


@dataclass(frozen=True)
class Outcome:
    """What became of one damage.

    Args:
        right: whether that is what should become of it.
        exit_code: of the command.
        output: of the command that went wrong, or of the last one.
    """

    right: bool
    exit_code: int
    output: str


# ---- texts


def sound_corpus(folder: Path) -> Path:
    """Write a folder of text that nothing is wrong with."""
    folder.mkdir(parents=True)
    for code, sentences in zip(CODES, (ENGLISH, SWAHILI), strict=True):
        (folder / f"{code}.txt").write_text("".join(f"{each}\n" for each in sentences), encoding="utf-8")
    return folder


def lines(sentences: list[str] = SWAHILI) -> bytes:
    """Return sentences as a file of text."""
    return "".join(f"{each}\n" for each in sentences).encode()


def objects(sentences: list[Any] = SWAHILI, field: str = "text") -> bytes:
    """Return sentences as JSON lines."""
    return "".join(json.dumps({field: each}) + "\n" for each in sentences).encode()


def _file(suffix: str, content: bytes) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / f"{SPOILT}.txt").unlink()
        (folder / f"{SPOILT}.{suffix}").write_bytes(content)

    return spoil


def _txt(content: bytes, told: str | None) -> Damage:
    return Damage(_file("txt", content), told)


def _jsonl(content: bytes, told: str | None) -> Damage:
    return Damage(_file("jsonl", content), told)


def _place(suffix: str, make: Spoil) -> Spoil:
    """Put something else than a file in its place."""

    def spoil(folder: Path) -> None:
        (folder / f"{SPOILT}.txt").unlink()
        make(folder / f"{SPOILT}.{suffix}")

    return spoil


def _table(
    columns: Mapping[str, Any] | pyarrow.Table, change: Callable[[bytes], bytes] = bytes, **options: Any
) -> Spoil:
    """Write a Parquet file, and change its bytes."""

    def spoil(folder: Path) -> None:
        (folder / f"{SPOILT}.txt").unlink()
        path = folder / f"{SPOILT}.parquet"
        table = columns if isinstance(columns, pyarrow.Table) else pyarrow.table(dict(columns))
        pyarrow.parquet.write_table(table, path, **options)
        path.write_bytes(change(path.read_bytes()))

    return spoil


def _as_text(values: list[bytes]) -> Any:
    """Return bytes as Arrow takes them for text, unlooked at."""
    return pyarrow.array(values, pyarrow.binary()).view(pyarrow.string())


def _in_line(text: str, number: int = 31) -> bytes:
    """Return JSON lines, one of which is replaced."""
    every = objects().decode().splitlines()
    return "\n".join([*every[: number - 1], text, *every[number:]]).encode()


def _overwritten(begin: float, length: int) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        at = int(begin * len(content))
        return content[:at] + b"\xff" * length + content[at + length :]

    return change


def _remove(folder: Path) -> None:
    (folder / f"{SPOILT}.txt").unlink()


def _replace_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("a file")


def _renamed(name: str) -> Spoil:
    return lambda folder: (folder / f"{SPOILT}.txt").rename(folder / name)


MARK = b"\xef\xbb\xbf"
BYTES = [each.encode() for each in SWAHILI]
FILE = f"{SPOILT}.txt"
JSONL, PARQUET = f"{SPOILT}.jsonl", f"{SPOILT}.parquet"
TOO_LITTLE = "too little"

TEXTS: dict[str, Damage] = {
    # text
    "txt: empty": _txt(b"", FILE),
    "txt: blank lines": _txt(b"\n  \n\t\n" * 40, FILE),
    "txt: one sentence": _txt(b"Mto ulijaa.\n", FILE),
    "txt: two short sentences": _txt(b"Mto.\nMvua.\n", TOO_LITTLE),
    "txt: a byte order mark alone": _txt(b"\xef\xbb\xbf", FILE),
    "txt: nothing that can be seen": _txt("\u200b\n\u200c\n\ufeff\n".encode(), TOO_LITTLE),
    "txt: Latin-1": _txt(lines()[:-2] + "é\n".encode("latin-1"), "line 60: not UTF-8"),
    "txt: Windows-1252": _txt("“Mto”\n".encode("cp1252") * 60, "line 1: not UTF-8"),
    "txt: UTF-16": _txt(lines().decode().encode("utf-16"), "line 1: not UTF-8"),
    "txt: UTF-16 without a mark": _txt(lines().decode().encode("utf-16-le"), "line 1: holds NUL"),
    "txt: UTF-16, the other way": _txt(lines().decode().encode("utf-16-be"), "line 1: holds NUL"),
    "txt: UTF-32": _txt(lines().decode().encode("utf-32-le"), "line 1: holds NUL"),
    "txt: Shift JIS": _txt("川が増水した\n".encode("shift_jis") * 60, "line 1: not UTF-8"),
    "txt: GB 18030": _txt("河水上涨了\n".encode("gb18030") * 60, "line 1: not UTF-8"),
    "txt: gzip": _txt(gzip.compress(lines()), "not UTF-8"),
    "txt: a picture": _txt(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9, "line 1: not UTF-8"),
    "txt: a NUL": _txt(lines()[:500] + b"\0" + lines()[500:], "holds NUL"),
    "txt: cut within a letter": _txt(lines() + "é".encode()[:1], "line 61: not UTF-8"),
    "txt: overlong": _txt(lines() + b"\xc0\xaf\n", "line 61: not UTF-8"),
    "txt: surrogates": _txt(lines() + b"\xed\xa0\xbd\xed\xb8\x80\n", "line 61: not UTF-8"),
    "txt: a byte that is none": _txt(lines()[:300] + b"\xff" + lines()[300:], "not UTF-8"),
    "txt: CR alone": _txt(lines().replace(b"\n", b"\r"), FILE),
    "txt: one line": _txt(lines().replace(b"\n", b" "), FILE),
    "txt: one line without end": _txt(b"mto " * (5 << 20), "line 1: longer than"),
    "txt: a folder": Damage(_place("txt", Path.mkdir), FILE),
    "txt: a link to nothing": Damage(_place("txt", lambda path: path.symlink_to("nothing")), FILE),
    "txt: a link to itself": Damage(_place("txt", lambda path: path.symlink_to(path.name)), ""),
    "txt: a pipe": Damage(_place("txt", os.mkfifo), FILE),
    "txt: a device": Damage(_place("txt", lambda path: path.symlink_to("/dev/zero")), FILE),
    "txt: a file that cannot be read": Damage(_place("txt", lambda path: path.symlink_to("/proc/self/mem")), FILE),
    "txt: both halves alike": _txt(lines(SWAHILI[:30] * 2), "corpus.drop_overlap=true"),
    "txt: one sentence again and again": _txt(lines(SWAHILI[:1] * 60), "corpus.drop_overlap=true"),
    "txt: another language's text": _txt(lines(ENGLISH[30:] + SWAHILI[30:]), "evaluation text of eng_Latn"),
    "txt: another language's text in capitals": Damage(
        _file("txt", lines([*SWAHILI[:29], ENGLISH[40].upper(), *SWAHILI[30:]])), "evaluation text of eng_Latn"
    ),
    "txt: another language's text with soft hyphens": Damage(
        _file("txt", lines([*SWAHILI[:29], "\xad".join(ENGLISH[40]), *SWAHILI[30:]])), "evaluation text of eng_Latn"
    ),
    "txt: another language's text with other punctuation": Damage(
        _file("txt", lines([*SWAHILI[:29], f"«{ENGLISH[40][:-1]}…»", *SWAHILI[30:]])), "evaluation text of eng_Latn"
    ),
    "txt: line ends of Windows": _txt(b"\xef\xbb\xbf" + lines().replace(b"\n", b"\r\n"), None),
    "txt: byte order marks within": _txt(MARK + lines(SWAHILI[:30]) + MARK + lines(SWAHILI[30:]), None),
    "txt: no line break at the end": _txt(lines().rstrip(), None),
    "txt: controls": _txt(lines([f"\x07{each}\x1b" for each in SWAHILI]), None),
    "txt: directions": _txt(lines([f"\u202e{each}\u202c" for each in SWAHILI]), None),
    "txt: other line separators": _txt(lines([f"{each}\u2028\u2029\x85" for each in SWAHILI]), None),
    "txt: characters that are none": _txt(lines([f"{each}\uffff\U0010ffff" for each in SWAHILI]), None),
    "txt: marks upon marks": _txt(lines([each + "\u0301" * 50 for each in SWAHILI]), None),
    "txt: emoji": _txt(lines([f"{each} 👩‍👩‍👧🏽" for each in SWAHILI]), None),
    "txt: special tokens": _txt(lines([f"</s>{each}" for each in SWAHILI]), None),
    "txt: the padding token": _txt(lines([f"<pad>{each}" for each in SWAHILI]), "<pad>"),
    # lines of JSON
    "jsonl: empty": _jsonl(b"", JSONL),
    "jsonl: blank lines": _jsonl(b"\n\n  \n", JSONL),
    "jsonl: no JSON": _jsonl(lines(), "line 1: not JSON"),
    "jsonl: a line that is cut": _jsonl(objects()[:-9], "line 60: not JSON"),
    "jsonl: single quotes": _jsonl(_in_line("{'text': 'mto'}"), "line 31: not JSON"),
    "jsonl: a comma too many": _jsonl(_in_line('{"text": "mto",}'), "line 31: not JSON"),
    "jsonl: two objects in a line": _jsonl(_in_line('{"text": "a"}{"text": "b"}'), "line 31: not JSON"),
    "jsonl: a control in a text": _jsonl(_in_line('{"text": "mto\x01"}'), "line 31: not JSON"),
    "jsonl: one array": _jsonl(json.dumps([{"text": each} for each in SWAHILI]).encode(), "line 1: not a JSON object"),
    "jsonl: an object over several lines": _jsonl(json.dumps({"text": SWAHILI}, indent=1).encode(), "line 1: not JSON"),
    "jsonl: texts without objects": _jsonl(b'"mto"\n' * 60, "line 1: not a JSON object"),
    "jsonl: numbers": _jsonl(b"1\n" * 60, "line 1: not a JSON object"),
    "jsonl: another field": _jsonl(objects(field="sentence"), "line 1: no 'text' but sentence"),
    "jsonl: a field that one line lacks": _jsonl(_in_line('{"id": 1}'), "line 31: no 'text' but id"),
    "jsonl: a number as text": _jsonl(_in_line('{"text": 1}'), "line 31: 'text' is not text"),
    "jsonl: a list as text": _jsonl(_in_line('{"text": ["mto"]}'), "line 31: 'text' is not text"),
    "jsonl: no text at all": _jsonl(objects([None] * 60), JSONL),
    "jsonl: half a character": _jsonl(_in_line(r'{"text": "mto \ud83d"}'), r"line 31: '\ud83d' is half"),
    "jsonl: the other half": _jsonl(_in_line(r'{"text": "\ude00 mto"}'), r"line 31: '\ude00' is half"),
    "jsonl: two halves the wrong way round": _jsonl(_in_line(r'{"text": "\ude00\ud83d"}'), "line 31"),
    "jsonl: an endless number": _jsonl(_in_line('{"text": "a", "n": ' + "9" * 9000 + "}"), "line 31"),
    "jsonl: brackets without end": _jsonl(_in_line('{"text": ' + "[" * 200_000), "line 31"),
    "jsonl: UTF-16": _jsonl(objects().decode().encode("utf-16"), "line 1: not UTF-8"),
    "jsonl: Latin-1": _jsonl('{"text": "é"}\n'.encode("latin-1") * 60, "line 1: not UTF-8"),
    "jsonl: NULs": _jsonl(objects() + b"\0" * 4096, "line 61: holds NUL"),
    "jsonl: gzip": _jsonl(gzip.compress(objects()), "not UTF-8"),
    "jsonl: one line without end": _jsonl(b'{"text": "' + b"mto " * (5 << 20), "line 1: longer than"),
    "jsonl: a folder": Damage(_place("jsonl", Path.mkdir), JSONL),
    "jsonl: a byte order mark": _jsonl(b"\xef\xbb\xbf" + objects(), None),
    "jsonl: a NUL in a text": _jsonl(objects([f"{each}\0" for each in SWAHILI]), None),
    "jsonl: keys that are there twice": _jsonl(objects().replace(b'{"', b'{"text": 1, "'), None),
    "jsonl: NaN": _jsonl(objects().replace(b'{"', b'{"score": NaN, "'), None),
    # Parquet
    "parquet: empty": Damage(_file("parquet", b""), PARQUET),
    "parquet: no Parquet": Damage(_file("parquet", lines()), PARQUET),
    "parquet: the first four bytes": Damage(_file("parquet", b"PAR1"), PARQUET),
    "parquet: nothing between its ends": Damage(_file("parquet", b"PAR1\xff\xff\xff\x7fPAR1"), PARQUET),
    "parquet: cut": Damage(_table({"text": SWAHILI}, lambda content: content[:-60]), PARQUET),
    "parquet: cut at the beginning": Damage(_table({"text": SWAHILI}, lambda content: content[60:]), PARQUET),
    "parquet: pages that are spoilt": Damage(_table({"text": SWAHILI}, _overwritten(0.2, 80)), PARQUET),
    "parquet: an end that is spoilt": Damage(_table({"text": SWAHILI}, _overwritten(0.85, 40)), PARQUET),
    "parquet: another column": Damage(_table({"sentence": SWAHILI}), "no 'text' but sentence"),
    "parquet: no columns": Damage(_table(pyarrow.table({})), "no 'text' but nothing"),
    "parquet: no rows": Damage(_table({"text": pyarrow.array([], pyarrow.string())}), PARQUET),
    "parquet: a column of numbers": Damage(_table({"text": list(range(60))}), "'text' is not text"),
    "parquet: a column of bytes": Damage(_table({"text": BYTES}), "'text' is not text"),
    "parquet: a column of lists": Damage(_table({"text": [[each] for each in SWAHILI]}), "'text' is not text"),
    "parquet: a column of structures": Damage(
        _table({"text": [{"a": each} for each in SWAHILI]}), "'text' is not text"
    ),
    "parquet: a column of nothing": Damage(_table({"text": pyarrow.nulls(60)}), "'text' is not text"),
    "parquet: texts that are all missing": Damage(_table({"text": pyarrow.nulls(60, pyarrow.string())}), PARQUET),
    "parquet: a column that is there twice": Damage(
        _table(pyarrow.Table.from_arrays([pyarrow.array(SWAHILI)] * 2, ["text", "text"])), "more than once"
    ),
    "parquet: Latin-1": Damage(_table({"text": _as_text([*BYTES, "mvua é".encode("latin-1")])}), "row 61: not UTF-8"),
    "parquet: half a character": Damage(_table({"text": _as_text([b"\xed\xa0\xbd", *BYTES])}), "row 1: not UTF-8"),
    "parquet: Latin-1 in a dictionary": Damage(
        _table({"text": _as_text([*BYTES, b"\xe9"] * 2).dictionary_encode()}), "not UTF-8"
    ),
    "parquet: a folder": Damage(_place("parquet", Path.mkdir), PARQUET),
    "parquet: some texts that are missing": Damage(_table({"text": [*SWAHILI, None, ""]}), None),
    "parquet: large text": Damage(_table({"text": pyarrow.array(SWAHILI, pyarrow.large_string())}), None),
    # folders
    "folder: a language without a file": Damage(_remove, "corpus.files={swh_Latn: STEM}"),
    "folder: a name in capitals": Damage(_renamed("SWH_LATN.TXT"), "similar: SWH_LATN.TXT"),
    "folder: a hyphen in the name": Damage(_renamed("swh-Latn.txt"), "similar: swh-Latn.txt"),
    "folder: another format": Damage(_renamed("swh_Latn.csv"), "corpus.files={swh_Latn: STEM}"),
    "folder: the macrolanguage": Damage(_renamed("swa_Latn.txt"), None),
    "folder: a file in its place": Damage(_replace_folder, "corpus.path="),
    "folder: gone": Damage(shutil.rmtree, "corpus.path="),
}  # fmt: skip


def try_text(name: str, model: Path, folder: Path) -> Outcome:
    """Put a damaged text through `python run.py`, with a model and an empty folder to work in."""
    corpus, output = sound_corpus(folder / "corpus"), folder / "run"
    TEXTS[name].spoil(corpus)
    overrides = [
        f"model.path={model}", "corpus=local", f"corpus.path={corpus}", f"langs=[{','.join(CODES)}]",
        "calibration.sequences=4", "calibration.length=32", "evaluation.window=64", "evaluation.stride=64",
        "tracking=none", "artifacts=false", f"output_dir={output}",
    ]  # fmt: skip
    code, said = typed(folder, "run.py", *overrides)
    told = TEXTS[name].told
    if told is None:
        return Outcome(code == 0 and (output / "results.json").is_file(), code, said)
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    clear = len(errors) == 1 and said.endswith(errors[0]) and told in errors[0] and "Traceback" not in said
    return Outcome(clear and code == 2 and not output.exists(), code, said)


def typed(folder: Path, *arguments: str) -> tuple[int, str]:
    """Type a command, and return its exit code and what it said on the terminal."""
    code = run(arguments, folder / "said")
    return code, (folder / "said").read_text(encoding="utf-8", errors="replace").strip()


# ---- run folders

What = Literal["shown", "named", "left out"]
"""Of a spoilt run, by the comparison: all of it is shown, it is named and not shown, or only the spoilt file is."""


@dataclass(frozen=True)
class RunDamage:
    """One way to spoil the folder of a finished run.

    Args:
        spoil: does it.
        compared: what the comparison makes of it.
        state: what the table of `mwanda.status` calls it.
    """

    spoil: Spoil
    compared: What
    state: str = "complete"


def _with(file: str, content: bytes | str) -> Spoil:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / file).write_bytes(data)


def _cut(file: str, share: float) -> Spoil:
    def spoil(folder: Path) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: int(share * len(content))])

    return spoil


def _instead(file: str, make: Spoil) -> Spoil:
    """Put something else than a file in its place."""

    def spoil(folder: Path) -> None:
        (folder / file).unlink()
        make(folder / file)

    return spoil


def _set(file: str, place: str, value: Any) -> Spoil:
    """Set what stands at a dotted place in a file of JSON or YAML; `*` is the first entry, Ellipsis takes away."""

    def spoil(folder: Path) -> None:
        path = folder / file
        content = json.loads(path.read_text()) if path.suffix == ".json" else yaml.safe_load(path.read_text())
        node, *parts = content, *place.split(".")
        for part in parts[:-1]:
            node = node[_key(node, part)]
        key = _key(node, parts[-1])
        if value is Ellipsis:
            del node[key]
        else:
            node[key] = value
        path.write_text(json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content))

    return spoil


def _key(node: Any, part: str) -> Any:
    if part == "*":
        return 0 if isinstance(node, list) else next(iter(node))
    return int(part) if isinstance(node, list) else part


def _recoded(encoding: str) -> Spoil:
    return lambda folder: (folder / R).write_bytes((folder / R).read_text().encode(encoding))


def _deep(folder: Path) -> None:
    (folder / "results.json").write_text('{"a":' * 100_000)


def _bomb(folder: Path) -> None:
    """Write a configuration of a few lines that would fill any memory."""
    levels = [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 12)]
    (folder / "config.yaml").write_text("\n".join(["a0: &a0 [x]", *levels, "criterion: {a: *a11}"]))


R, C, S, U, M = "results.json", "config.yaml", "status.json", "units.parquet", "masks.safetensors"
INSIDE, HEADING = "inside/energy.csv", "layer,language,energy_lost,drift"

RUNS: dict[str, RunDamage] = {
    **{f"results.json: cut at {share:.0%}": RunDamage(_cut(R, share), "named") for share in (0, 0.1, 0.5, 0.9, 0.999)},
    "results.json: blank": RunDamage(_with(R, "  \n"), "named"),
    "results.json: a list": RunDamage(_with(R, "[]"), "named"),
    "results.json: a text": RunDamage(_with(R, '"complete"'), "named"),
    "results.json: a number": RunDamage(_with(R, "1"), "named"),
    "results.json: null": RunDamage(_with(R, "null"), "named"),
    "results.json: nothing in it": RunDamage(_with(R, "{}"), "named"),
    "results.json: NULs": RunDamage(_with(R, b"\0" * 4096), "named"),
    "results.json: bytes": RunDamage(_with(R, bytes(range(256))), "named"),
    "results.json: UTF-16": RunDamage(_recoded("utf-16"), "named"),
    "results.json: brackets without end": RunDamage(_deep, "named"),
    "results.json: an endless number": RunDamage(_with(R, '{"schema": ' + "9" * 9000 + "}"), "named"),
    "results.json: a folder": RunDamage(_instead(R, Path.mkdir), "named"),
    "results.json: a link to itself": RunDamage(_instead(R, lambda path: path.symlink_to(path.name)), "named"),
    "results.json: a pipe": RunDamage(_instead(R, os.mkfifo), "named"),
    "results.json: gone": RunDamage(lambda folder: (folder / R).unlink(), "named"),
    **{
        f"results.json: without {place}": RunDamage(_set(R, place, ...), "named")
        for place in (
            "schema", "status", "model", "criterion", "schedule", "sparsity", "model.id", "criterion.name",
            "sparsity.target", "sparsity.pattern", "sparsity.per_layer", "sparsity.per_matrix",
            "sparsity.per_layer.*.achieved", "perplexity.protocol", "perplexity.dense", "perplexity.pruned",
            "perplexity.protocol.hash", "perplexity.dense.*.perplexity", "perplexity.paired.*.significant",
            "inside.per_layer", "inside.per_layer.*.drift",
        )
    },
    **{
        f"results.json: {place} is {value!r}": RunDamage(_set(R, place, value), "named")
        for place, value in (
            ("schema", 1), ("schema", "mwanda.status/1"), ("status", None), ("status", ["complete"]), ("model", []),
            ("model.id", 3), ("criterion", "wanda"), ("sparsity", None), ("sparsity.target", "0.5"),
            ("sparsity.per_layer", {}), ("sparsity.per_layer.*", "0.5"), ("sparsity.per_layer.*.achieved", None),
            ("sparsity.per_matrix.*.name", 3), ("perplexity", []), ("perplexity.dense", []),
            ("perplexity.dense.*", None),
            ("perplexity.dense.*.perplexity", "12"), ("perplexity.dense.*.perplexity", 0),
            ("perplexity.dense.*.perplexity", -3.0), ("perplexity.dense.*.perplexity", float("nan")),
            ("perplexity.dense.*.tokens", "many"), ("perplexity.pruned.*", 3), ("perplexity.paired", []),
            ("perplexity.paired.*", None), ("perplexity.paired.*.log_ratio", "0.1"),
            ("perplexity.paired.*.significant", "yes"), ("perplexity.protocol", "document/2"),
            ("calibration.tokens_per_language", []), ("seed", []), ("tasks", []), ("tasks", {"about": {"a": {}}}),
            ("inside", 3), ("inside.per_language", []), ("model.id", "half \ud83d"),
        )
        if value != []  or place not in ("perplexity", "tasks")
    },
    "results.json: failed, with a text for a reason": RunDamage(
        lambda folder: (_set(R, "status", "failed")(folder), _set(R, "error", "out of memory")(folder)), "named"
    ),
    "results.json: one language that only one model has": RunDamage(_set(R, "perplexity.pruned.*", ...), "shown"),
    "results.json: a section more": RunDamage(_set(R, "more", {"a": [1]}), "shown"),
    "results.json: an infinite perplexity": RunDamage(_set(R, "perplexity.pruned.*.perplexity", None), "shown"),
    "config.yaml: cut": RunDamage(_with(C, "criterion: {a: ["), "named"),
    "config.yaml: a list": RunDamage(_with(C, "- a\n"), "named"),
    "config.yaml: a text": RunDamage(_with(C, "nothing"), "named"),
    "config.yaml: empty": RunDamage(_with(C, ""), "named"),
    "config.yaml: tabs": RunDamage(_with(C, "a:\n\t- b\n"), "named"),
    "config.yaml: bytes": RunDamage(_with(C, bytes(range(256))), "named"),
    "config.yaml: an object of Python": RunDamage(_with(C, "a: !!python/object/apply:os.getcwd []\n"), "named"),
    "config.yaml: holds itself": RunDamage(_with(C, "criterion: &a {b: *a}\n"), "named"),
    "config.yaml: without end": RunDamage(_bomb, "named"),
    "config.yaml: a section that is a list": RunDamage(_set(C, "criterion", ["wanda"]), "named"),
    "config.yaml: a folder": RunDamage(_instead(C, Path.mkdir), "named"),
    "config.yaml: gone": RunDamage(lambda folder: (folder / C).unlink(), "shown"),
    "overrides.yaml: cut": RunDamage(_with("overrides.yaml", "- [a"), "shown"),
    "overrides.yaml: gone": RunDamage(lambda folder: (folder / "overrides.yaml").unlink(), "shown"),
    "run.log: bytes": RunDamage(_with("run.log", bytes(range(256))), "shown"),
    **{f"status.json: cut at {share:.0%}": RunDamage(_cut(S, share), "shown") for share in (0, 0.5, 0.98)},
    "status.json: a list": RunDamage(_with(S, "[]"), "shown"),
    "status.json: null": RunDamage(_with(S, "null"), "shown"),
    "status.json: bytes": RunDamage(_with(S, bytes(range(256))), "shown"),
    "status.json: a folder": RunDamage(_instead(S, Path.mkdir), "shown", ""),
    "status.json: gone": RunDamage(lambda folder: (folder / S).unlink(), "shown", ""),
    **{
        f"status.json: without {place}": RunDamage(_set(S, place, ...), "shown")
        for place in ("state", "stage", "seconds", "config_hash", "exception", "progress", "pid")
    },
    **{
        f"status.json: {place} is {value!r}": RunDamage(_set(S, place, value), "shown")
        for place, value in (
            ("state", "asleep"), ("state", None), ("seconds", "long"), ("seconds", None), ("exception", "killed"),
            ("exception", {}), ("updated", "yesterday"), ("progress", "half"), ("pid", "one"), ("blocks", "many"),
        )
    },
    "status.json: at work since nobody knows": RunDamage(
        lambda folder: (_set(S, "state", "running")(folder), _set(S, "updated", "?")(folder), _cut(R, 0.5)(folder)),
        "named", "unreadable",
    ),
    "status.json: at work, by a number that no process has": RunDamage(
        lambda folder: (_set(S, "state", "running")(folder), _set(S, "pid", 1 << 70)(folder), _cut(R, 0.5)(folder)),
        "named", "lost",
    ),
    "status.json and results.json: cut": RunDamage(
        lambda folder: (_cut(S, 0.5)(folder), _cut(R, 0.5)(folder)), "named", "unreadable"
    ),
    "units.parquet: cut": RunDamage(_cut(U, 0.5), "shown"),
    "units.parquet: bytes": RunDamage(_with(U, bytes(range(256))), "shown"),
    "units.parquet: a folder": RunDamage(_instead(U, Path.mkdir), "shown"),
    "units.parquet: gone": RunDamage(lambda folder: (folder / U).unlink(), "shown"),
    "inside: bytes": RunDamage(_with(INSIDE, bytes(range(256))), "left out"),
    "inside: empty": RunDamage(_with(INSIDE, ""), "left out"),
    "inside: other columns": RunDamage(_with(INSIDE, "a,b\n1,2\n"), "left out"),
    "inside: text for a number": RunDamage(_with(INSIDE, f"{HEADING}\n0,eng_Latn,much,0\n"), "left out"),
    "inside: a line that is cut": RunDamage(_with(INSIDE, f"{HEADING}\n0,eng_Latn\n"), "left out"),
    "inside: a folder": RunDamage(_instead(INSIDE, Path.mkdir), "left out"),
    "inside: gone": RunDamage(lambda folder: shutil.rmtree(folder / "inside"), "shown"),
    "masks: cut": RunDamage(_cut(M, 0.7), "left out"),
    "masks: empty": RunDamage(_with(M, ""), "left out"),
    "masks: bytes": RunDamage(_with(M, bytes(range(256)) * 9), "left out"),
    "masks: of nothing": RunDamage(_with(M, (2).to_bytes(8, "little") + b"{}"), "left out"),
    "masks: a folder": RunDamage(_instead(M, Path.mkdir), "left out"),
    "masks: gone": RunDamage(lambda folder: (folder / M).unlink(), "shown"),
}  # fmt: skip


def of(place: str, value: Any) -> Spoil:
    """Set what stands at a dotted place in results.json; Ellipsis takes it away."""
    return _set(R, place, value)


def sound_run(model: Path, folder: Path, *more: str) -> Path:
    """Run a job that leaves everything that a run may leave, and return its folder."""
    import tiny_job

    tiny_job.run(model, folder, "inside=full", "inside.tokens=32", "export=masks", "pruner.checkpoint=false", *more)
    return folder


def try_run(name: str, sound: Path, folder: Path) -> Outcome:
    """Spoil a copy of a finished run beside another copy, and look at both with comparison and status."""
    runs, damage = folder / "runs", RUNS[name]
    for each in ("first", "second"):
        shutil.copytree(sound, runs / each)
    damage.spoil(runs / "second")
    code, said = typed(folder, "-m", "mwanda.comparison", str(runs), "--output", str(folder / "report"))
    report = (folder / "report" / "report.md").read_text() if code == 0 else ""
    wrong = problem({"second": damage}, code, said, report)
    if wrong:
        return Outcome(False, code, f"{wrong}\n{said}")
    code, said = typed(folder, "-m", "mwanda.status", str(runs))
    wrong = problem_of_table({"second": damage}, code, said)
    return Outcome(not wrong, code, f"{wrong}\n{said}")


def problem(damages: Mapping[str, RunDamage], exit_code: int, said: str, report: str) -> str:
    """Return what is wrong with a comparison of `first`, which is sound, and of damaged runs; else nothing.

    Args:
        damages: by the name of the run.
        exit_code: of the comparison.
        said: what it said.
        report: report.md.
    """
    if exit_code != 0 or "Traceback" in said:
        return "the comparison failed"
    shown = 1 + sum(damage.compared != "named" for damage in damages.values())
    if f"{shown} runs, " not in report:
        return f"{shown} runs should be shown"
    for name, damage in damages.items():
        named = [line for line in said.splitlines() if line.startswith(f"warning: {name}/") and "is left out" in line]
        if damage.compared == "left out" and not named:
            return f"the file of {name} that was left out is not named"
        if damage.compared == "named" and f"| {name} " not in report:
            return f"{name} is not listed"
    return ""


def problem_of_table(damages: Mapping[str, RunDamage], exit_code: int, said: str) -> str:
    """Return what is wrong with the table of a sound run and of damaged ones; nothing where it is right."""
    rows = {line.split()[0]: line.split()[1] for line in said.splitlines() if len(line.split()) > 1}
    if "Traceback" in said or rows.get("first") != "complete":
        return "the table failed"
    for name, damage in damages.items():
        if rows.get(name, "") != damage.state:
            return f"{name} is {rows.get(name)}, not {damage.state}"
    failed = any(damage.state not in ("complete", "") for damage in damages.values())
    return "" if exit_code == int(failed) else f"the exit code is {exit_code}"
