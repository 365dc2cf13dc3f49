"""What benchmarks/robustness.py tries besides kills: runs started at once, damaged, fuzzed and told secrets."""

import contextlib
import io
import json
import multiprocessing
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: processes that fork may have no threads

import damage_text  # noqa: E402
import tiny_job  # noqa: E402
from tiny_models import save_tiny_model  # noqa: E402

from mwanda.errors import InputError  # noqa: E402
from mwanda.job import status  # noqa: E402


REFUSED = InputError.exit_code


class Placed(str):
    """What was done, with its place in a table of its own.

    Args:
        text: what was done.
        row: of the table.
        column: of the table.
    """

    row: str
    column: str

    def __new__(cls, text: str, row: str, column: str) -> "Placed":
        """Return the text with its place."""
        made = super().__new__(cls, text)
        made.row, made.column = row, column
        return made


Tries = Iterator[tuple[str, str | None]]
"""Of each try: what was done, and what was wrong with how it ended."""


@dataclass(frozen=True)
class Settings:
    """How much is tried.

    Args:
        kills: processes that are killed.
        configurations: that are drawn.
        rounds: of many starts at once.
        seed: of all that is drawn.
    """

    kills: int = 100
    configurations: int = 500
    rounds: int = 5
    seed: int = 0


Item = Callable[[Path, Settings], Tries]

ITEMS: dict[str, tuple[str, Item]] = {}
"""By name: what the table says of it, and the tries."""

Sound = Callable[[Path], Path]


def a_model(place: Path) -> Path:
    """Return a folder with a model that nothing is wrong with."""
    return save_tiny_model("llama", place)


def a_run(place: Path) -> Path:
    """Return the folder of a finished run that nothing is wrong with."""
    return damage_text.sound_run(a_model(place / "model"), place / "run")


OTHERS: dict[str, tuple[str, str, str, str, Sound | None]] = {
    "texts": ("damage_text", "TEXTS", "try_text", "damaged texts: one clear error, or read where harmless", a_model),
    "runs": ("damage_text", "RUNS", "try_run", "damaged run folders: the others are shown, and it is named", a_run),
}
"""Items that are tables of damages in `tests/`: module, table, function that tries one, title, and what it takes."""


def item(name: str, title: str) -> Callable[[Item], Item]:
    """Register the tries of one kind."""

    def register(tries: Item) -> Item:
        ITEMS[name] = title, tries
        return tries

    return register


def forks() -> Any:
    """Return where processes come from: a server that has imported everything, so that they begin at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mwanda.sweep.preload", "mwanda.job.run", "tiny_job", "tiny_models"])
    return context


# ---- many starts at once


def _start(model: str, folder: str, more: tuple[str, ...], gate: Any, ends: Any) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    gate.wait()
    try:
        tiny_job.run(Path(model), Path(folder), *more)
        ends.put("complete")
    except InputError as error:
        ends.put(str(error))
    except BaseException as error:
        ends.put(f"{type(error).__name__}: {error}")


@item("starts", "rounds of eight runs started in one folder at once: one winner, the others touch nothing")
def starts(place: Path, settings: Settings) -> Tries:
    """Start eight runs at once, some of which are refused for their text."""
    model, context = save_tiny_model("llama", place / "model"), forks()
    allowed = ("another process is at work there", "holds a finished run", "would fit")
    for number in range(settings.rounds):
        folder, gate, queue = place / str(number) / "run", context.Barrier(8), context.Queue()
        refused = number % 4
        jobs = [("calibration.sequences=4000",) if index < refused else () for index in range(8)]
        processes = [context.Process(target=_start, args=(str(model), str(folder), more, gate, queue)) for more in jobs]
        for process in processes:
            process.start()
        ends = [queue.get(timeout=600) for _ in processes]
        for process in processes:
            process.join()
        others = [end for end in ends if end != "complete" and not any(part in end for part in allowed)]
        wrong = f"ended with {others[0]}" if others else None
        if ends.count("complete") > 1 or (not refused and ends.count("complete") != 1):
            wrong = f"{ends.count('complete')} winners"
        if "complete" in ends:
            written = json.loads((folder / status.FILE).read_text(encoding="utf-8"))
            whole = (written["state"], written["attempt"]) == ("complete", 1)
            log = (folder / "run.log").read_text(encoding="utf-8")
            if not whole or log.count("calibrating and pruning") != 1:
                wrong = "the winner's files were touched"
        elif folder.parent.exists():
            wrong = "refused runs left a folder"
        yield f"round {number}, {refused} of them refused", wrong


# ---- caches that are damaged


@item("caches", "artifacts with damaged index or content: reported, set aside, made again; nothing outside is touched")
def caches(place: Path, settings: Settings) -> Tries:
    """Damage a store of artifacts in all ways that a disk or a hand may."""
    import logging

    import torch

    from mwanda.artifacts.store import DATA, ArtifactCache

    drawn, tensors = random.Random(settings.seed), {"a": torch.arange(12.0).reshape(3, 4)}
    logging.getLogger("mwanda.artifacts").setLevel(logging.ERROR)
    names: list[Any] = ["../../mine", "..", "/etc/hostname", "", "a" * 64, None, 3, [], {}, "\0"]
    ways: list[tuple[str, Callable[[bytes], bytes]]] = [
        ("a bit", lambda data: _flipped(data, drawn)),
        ("cut", lambda data: data[: drawn.randrange(len(data))]),
        ("empty", lambda data: b""),
        ("zeros", lambda data: bytes(len(data))),
        ("noise", lambda data: drawn.randbytes(len(data))),
        ("no JSON", lambda data: b"[" * 5000),
        ("a list", lambda data: b"[]"),
        ("doubled", lambda data: data + data),
        *((f"data={name!r}", lambda data, name=name: _with(data, name)) for name in names),
    ]
    for number in range(120):
        folder = place / str(number)
        mine = folder / "mine.safetensors"
        cache = ArtifactCache({"model": "m"}, "about", folder / "store")
        cache.keep("kind", {}, tensors, {"x": 1})
        mine.write_bytes(b"precious")
        (index,), (content,) = (list((folder / "store" / each).iterdir()) for each in ("kind", DATA))
        what, way = ways[number % len(ways)]
        victim = content if number // len(ways) % 2 and not what.startswith("data=") else index
        before = victim.read_bytes()
        victim.write_bytes(way(before))
        try:
            found = cache.find("kind", {})
            wrong = None
            if found is not None and not (found.tensors["a"].equal(tensors["a"]) and found.metadata == {"x": 1}):
                wrong = "something else was believed"
            cache.keep("kind", {}, tensors, {"x": 1})
            again = cache.find("kind", {})
            if again is None or not again.tensors["a"].equal(tensors["a"]):
                wrong = "it was not made again"
            if mine.read_bytes() != b"precious":
                wrong = "a file outside was touched"
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
        yield f"{what} of {victim.parent.name}", wrong


def _flipped(data: bytes, drawn: random.Random) -> bytes:
    place = drawn.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << drawn.randrange(8))]) + data[place + 1 :]


def _with(data: bytes, name: Any) -> bytes:
    found = json.loads(data) if data[:1] == b"{" else {}
    return json.dumps(found | {"data": name}).encode()


# ---- configurations that are drawn


@item("configurations", "configurations drawn over the whole schema: one line, exit 2 and nothing left, or a valid run")
def configurations(place: Path, settings: Settings) -> Tries:
    """Change one or two values of a configuration to something else of any type."""
    from fuzzing import changes, ended

    model = save_tiny_model("llama", place / "model")
    for number, change in enumerate(changes(model, settings.configurations, settings.seed)):
        folder = place / f"run-{number}"
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            wrong = ended(model, folder, change, typed=number % 5 == 0)
        yield f"{change}", wrong


def models(damaged: Callable[[Path], Iterator[tuple[str, Path]]]) -> Item:
    """Return the tries of all damaged models that another module makes."""

    def item(place: Path, settings: Settings) -> Tries:
        for number, (name, folder) in enumerate(damaged(place / "models")):
            run = place / f"run-{number}"
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                wrong = _wrong_with_refusal(folder, run)
            yield name, wrong

    return item


def _wrong_with_refusal(model: Path, run: Path) -> str | None:
    try:
        tiny_job.run(model, run)
    except InputError as error:
        unclear = error.exit_code != REFUSED or not str(error).strip()
        return f"unclear: {error!r}" if unclear else "the folder is left" if run.exists() else None
    except BaseException as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return "it was believed"


# ---- secrets that are planted

PLANTED = {"HF_TOKEN": "hf_planted1token2of3nobody", "WANDB_API_KEY": "planted4key5of6nobody7at8all"}
PASSWORD = "-".join(("planted9", "password"))  # in pieces: this file may be in a git.diff

PLACES = {
    "the name": ("name=${oc.env:HF_TOKEN}",),
    "a tag of the tracker": ("tracking=wandb", "tracking.mode=offline", "tracking.tags=['${oc.env:WANDB_API_KEY}']"),
    "a URL for a model": (f"model.path=https://user:{PASSWORD}@example.org/model",),
    "a URL for a corpus": ("corpus=local", f"corpus.path=https://user:{PASSWORD}@example.org/text"),
    "a value that is refused": ("sparsity=${oc.env:HF_TOKEN}",),
    "a language that is none": ("langs.codes=['${oc.env:WANDB_API_KEY}']",),
    "the name of a folder": ("output_dir=outputs/${oc.env:HF_TOKEN}",),
}
"""Where secrets are planted, by what is typed."""


@item("secrets", "secrets planted in what is typed: none found in any file (its name included), nor on the terminal")
def secrets(place: Path, settings: Settings) -> Tries:
    """Type secrets where people have typed them, and look for them in all that a run leaves and prints."""
    model = a_model(place / "model")
    for number, (what, typed) in enumerate(PLACES.items()):
        work = place / str(number)
        work.mkdir()
        environment = os.environ | PLANTED | {"PYTHONPATH": str(ROOT), "MWANDA_CACHE": str(work / "cache")}
        command = [sys.executable, str(ROOT / "run.py"), *tiny_job.overrides(model), *typed]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, timeout=600, check=False)
        texts = {"the terminal": done.stdout + done.stderr}
        for path in work.rglob("*"):
            texts[str(path.relative_to(work))] = path.read_bytes() if path.is_file() else b""
        values = [value.encode() for value in (*PLANTED.values(), PASSWORD)]
        found = [name for name, text in texts.items() for value in values if value in text or value in name.encode()]
        yield what, f"found in {', '.join(found)}" if found else None
