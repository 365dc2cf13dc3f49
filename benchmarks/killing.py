"""Runs that are killed at every stage and taken up again: what benchmarks/robustness.py counts by order and stage.

Of the kills of each configuration, one third comes at a random moment after its first file, one third at a random
moment of a stage (each in turn), and one third where a file takes its place: an artifact, a part of the checkpoint or
of the export, or any (before it or after it). SIGKILL ends the process itself, so that nothing of it can tidy up.
"""

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, get_args

import tiny_job
from breaking import Placed, Settings, Tries, forks, item
from tiny_models import save_tiny_model

from mwanda.errors import InputError
from mwanda.export.masks import load
from mwanda.job import status
from mwanda.job.folder import CHECKPOINT, WORK
from mwanda.system.ownership import UNFINISHED


NUMBERS = ("model", "criterion", "sparsity", "calibration", "schedule", "perplexity")
"""What two runs of one configuration have in common."""

BEFORE = "before its first file"

FILES = {"artifact": "writes an artifact", "checkpoint": "writes its checkpoint", "export": "writes its export"}
"""Kinds of files, and what a run does that is killed at one."""

DOING = (BEFORE, *get_args(status.Stage), *FILES.values())
"""What a run may be doing when it is killed, in order."""

POLL = 0.002


@dataclass(frozen=True)
class Shot:
    """When a run is killed.

    Args:
        seconds: after the beginning of the stage.
        stage: at which; None: at any, and the seconds count from the first file.
        file: kind of the file at which it kills itself instead, "" for any kind; None: it is killed at a moment.
        number: of that file among those of its kind.
        after: whether the file is in its place by then.
    """

    seconds: float = 0.0
    stage: str | None = None
    file: str | None = None
    number: int = 0
    after: bool = False

    def __str__(self) -> str:
        if self.file is not None:
            return f"{'after' if self.after else 'before'} {self.file or 'any'} file {self.number}"
        return f"{self.seconds:.2f} s{f' into {self.stage}' if self.stage else ''}"


@dataclass
class Way:
    """One configuration that is killed at different moments, and what it gives when it is not.

    Args:
        order: of the pruner.
        name: of the configuration.
        overrides: of it.
        folder: where it is run.
        seconds: that it takes from its first file on.
        stages: seconds of each stage.
        files: how many of each kind it writes.
        expected: results.
    """

    order: str
    name: str
    overrides: tuple[str, ...]
    folder: Path
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    files: Counter[str] = field(default_factory=Counter)
    expected: dict[str, Any] = field(default_factory=dict)

    def shots(self, drawn: random.Random) -> Iterator[Shot]:
        """Yield when it is killed, without end."""
        names, files = list(self.stages), [*(kind for kind in FILES if self.files[kind]), ""]
        drawn.shuffle(names)
        drawn.shuffle(files)
        stages, kinds = cycle(names), cycle(files)
        while True:
            yield Shot(drawn.uniform(0, self.seconds))
            stage = next(stages)
            yield Shot(drawn.uniform(0, self.stages[stage]), stage)
            kind = next(kinds)
            number = drawn.randrange(self.files[kind] if kind else self.files.total())
            yield Shot(file=kind, number=number, after=drawn.random() < 0.5)


def kind_of(path: Path, folder: Path, cache: Path) -> str:
    """Return of which kind a file is that takes its place: a key of `FILES`, or "other"."""
    if path.is_relative_to(cache):
        return "artifact"
    inside = path.relative_to(folder).parts if path.is_relative_to(folder) else ()
    if CHECKPOINT in inside:
        return "checkpoint"
    exports = ("model", "masks.safetensors")
    return "export" if inside and any(part.startswith(exports) for part in inside) else "other"


def watch_files(folder: Path, cache: Path, shot: Shot | None, said: Path) -> Counter[str]:
    """Count the files that take their place, by kind, and end this process at the one that is meant."""
    counts: Counter[str] = Counter()
    replace = os.replace

    def watched(source: Any, target: Any, **more: Any) -> None:
        kind = kind_of(Path(target), folder, cache)
        number = counts.total() if shot is not None and not shot.file else counts[kind]
        here = shot is not None and shot.file in ("", kind) and number == shot.number
        counts[kind] += 1
        if here and shot is not None:
            said.write_text(kind)
            if shot.after:
                replace(source, target, **more)
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target, **more)

    os.replace = watched
    return counts


def run_quietly(model: str, folder: str, overrides: tuple[str, ...], cache: str, end: str, shot: Shot | None) -> None:
    """Be a run: what it prints goes nowhere, and how it ended into a file."""
    os.environ["MWANDA_CACHE"] = cache
    os.setsid()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    counts = watch_files(Path(folder), Path(cache), shot, Path(f"{end}.file"))
    try:
        tiny_job.run(Path(model), Path(folder), *overrides)
        Path(f"{end}.files").write_text(json.dumps(counts))
        Path(end).write_text("complete")
    except InputError as error:
        Path(end).write_text(f"refused: {error}")
    except BaseException as error:
        Path(end).write_text(f"{type(error).__name__}: {error}")
        raise


@item("kills", "runs killed (`kill -9`) at every stage, then resumed: same masks and numbers, nothing left over")
def kills(place: Path, settings: Settings) -> Tries:
    """Kill runs of every order, with and without blocks on disk, while they work, export and keep artifacts."""
    drawn, model, context = random.Random(settings.seed), save_tiny_model("llama", place / "model"), forks()
    ways = [
        Way(order, f"{offload} {export}", _overrides(order, offload, export), place / f"{order}-{offload}-{export}")
        for order in ("arrival", "block", "oneshot")
        for offload, export in (("none", "masks"), ("disk", "hf"), ("none", "hf"))
    ]
    ways = ways[: settings.kills]
    for way in ways:
        end = _measure(context, model, way, place / f"cache-{way.folder.name}")
        if end != "complete":
            yield f"{way.order} {way.name}", f"did not run at all: {end}"
            return
    shots = [way.shots(drawn) for way in ways]
    tried = 0
    while tried < settings.kills:
        way, shot = ways[tried % len(ways)], next(shots[tried % len(ways)])
        folder = way.folder / f"run-{drawn.randrange(1 << 48):x}"
        cache = folder.with_name(f"{folder.name}-cache")
        doing = _kill(context, model, way, folder, cache, shot)
        if doing is None:
            continue  # it was quicker than the shot
        tried += 1
        end = _finished(context, model, way, folder, cache)
        what = f"{way.order} {way.name}, {shot}, {doing}"
        yield Placed(what, row=doing, column=way.order), _wrong_with(end, way, folder, cache)


def _overrides(order: str, offload: str, export: str) -> tuple[str, ...]:
    return (f"pruner.order={order}", f"model.offload={offload}", f"export={export}", "schedule=owl_cwl",
            "artifacts=true", "resume=true")  # fmt: skip


def _process(context: Any, model: Path, way: Way, folder: Path, cache: Path, shot: Shot | None) -> tuple[Any, Path]:
    end = folder.with_name(f"{folder.name}.end")
    end.parent.mkdir(parents=True, exist_ok=True)
    end.unlink(missing_ok=True)
    arguments = (str(model), str(folder), way.overrides, str(cache), str(end), shot)
    process = context.Process(target=run_quietly, args=arguments)
    process.start()
    return process, end


def _measure(context: Any, model: Path, way: Way, cache: Path) -> str:
    """Run a configuration undisturbed and note its results, stages and files; return how it ended."""
    folder = way.folder / "whole"
    process, end = _process(context, model, way, folder, cache, None)
    first = {BEFORE: time.monotonic()}
    while process.is_alive():
        process.join(POLL)
        first.setdefault(_stage(folder), time.monotonic())
    moments = [*first.values(), time.monotonic()]
    way.seconds = moments[-1] - moments[1]
    way.stages = {stage: moments[number + 1] - moments[number] for number, stage in enumerate(first)}
    ended = end.read_text() if end.is_file() else f"exit code {process.exitcode}"
    if ended == "complete":
        way.expected = _numbers(folder)
        way.files = Counter(json.loads(Path(f"{end}.files").read_text()))
    return ended


def _stage(folder: Path) -> str:
    try:
        return str(json.loads((folder / status.FILE).read_bytes())["stage"])
    except FileNotFoundError:
        return BEFORE


def _has_come(shot: Shot, stage: str) -> bool:
    return stage != BEFORE if shot.stage is None else stage == shot.stage


def _finished(context: Any, model: Path, way: Way, folder: Path, cache: Path) -> str:
    process, end = _process(context, model, way, folder, cache, None)
    process.join()
    return end.read_text() if end.is_file() else f"exit code {process.exitcode}"


def _kill(context: Any, model: Path, way: Way, folder: Path, cache: Path, shot: Shot) -> str | None:
    """Kill a run; return what it was doing, or None when it had finished before."""
    process, end = _process(context, model, way, folder, cache, shot if shot.file is not None else None)
    if shot.file is None:
        while process.is_alive() and not _has_come(shot, _stage(folder)):
            process.join(POLL)
        process.join(shot.seconds)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
    process.join()
    if end.is_file():
        return None
    at = Path(f"{end}.file")
    kind = at.read_text() if at.is_file() else ""
    return FILES.get(kind) or _stage(folder)


def _numbers(folder: Path) -> dict[str, Any]:
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return {key: results[key] for key in NUMBERS}


def _wrong_with(end: str, way: Way, folder: Path, cache: Path) -> str | None:
    if end != "complete":
        return f"the resumed run ended with {end}"
    if _numbers(folder) != way.expected:
        return "other numbers"
    whole = way.folder / "whole"
    if (whole / "masks.safetensors").exists():
        masks, expected = load(folder / "masks.safetensors"), load(whole / "masks.safetensors")
        if masks.keys() != expected.keys() or not all(mask.equal(expected[name]) for name, mask in masks.items()):
            return "other masks"
    left = [str(path.relative_to(folder)) for path in folder.rglob(f"*{UNFINISHED}")]
    left += [name for name in (CHECKPOINT, WORK) if (folder / name).exists()]
    names = {path.name for path in folder.iterdir()} ^ {path.name for path in whole.iterdir()}
    return f"left over: {', '.join([*left, *names])}" if left or names else None
