"""What runs share is found again, never trusted blindly, and never in the way."""

import inspect
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny_job
import torch
from tiny_models import save_tiny_model

from mwanda.artifacts import __main__, store
from mwanda.artifacts.store import ArtifactCache
from mwanda.evaluation.harness import Harness
from mwanda.evaluation.perplexity import LanguagePerplexity, Perplexity
from mwanda.evaluation.task_scores import Scores
from mwanda.job import reuse
from mwanda.pruner.walk import Walk
from mwanda.system.conf import CONF
from mwanda.system.content import sha256_of
from mwanda.system.ownership import UNFINISHED


NUMBERS = ("model", "sparsity", "calibration", "schedule", "perplexity", "tasks")
TENSORS = {"a": torch.arange(6).reshape(2, 3), "b": torch.tensor([0.5, float("nan")], dtype=torch.float64)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def cache(tmp_path: Path) -> ArtifactCache:
    return ArtifactCache({"model": "m"}, "about", tmp_path / "store")


def again(cache: ArtifactCache, **changes: Any) -> ArtifactCache:
    return ArtifactCache({**cache.key, **changes}, cache.about, cache.folder)


def data(cache: ArtifactCache) -> list[Path]:
    assert cache.folder is not None
    return sorted((cache.folder / store.DATA).glob("*.safetensors"))


def test_what_was_kept_is_found_by_the_same_key_alone(cache: ArtifactCache) -> None:
    assert cache.find("kind", {"x": 1}) is None
    cache.keep("kind", {"x": 1}, TENSORS, {"infinite": float("inf"), "list": [1, None]})
    reader = again(cache)
    found = reader.find("kind", {"x": 1})
    assert found is not None
    assert found.metadata == {"infinite": float("inf"), "list": [1, None]}
    assert set(found.tensors) == {"a", "b"}
    assert all(torch.equal(found.tensors[name].nan_to_num(7), value.nan_to_num(7)) for name, value in TENSORS.items())
    assert reader.reused == cache.made == [{"kind": "kind", "key": store.digest({"model": "m", "x": 1})}]
    assert again(cache).find("kind", {"x": 2}) is None
    assert again(cache).find("other", {"x": 1}) is None
    assert again(cache, model="n").find("kind", {"x": 1}) is None


def test_content_is_named_by_its_checksum(cache: ArtifactCache) -> None:
    cache.keep("kind", {"x": 1}, TENSORS)
    cache.keep("kind", {"x": 2}, TENSORS)
    (file,) = data(cache)
    assert sha256_of(file) == file.stem


DAMAGES = {
    "a bit": lambda file: file.write_bytes(file.read_bytes()[:-1] + b"?"),
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "empty": lambda file: file.write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("which", ["data", "index"])
def test_a_corrupt_one_is_reported_moved_aside_and_made_again(
    cache: ArtifactCache, damage: str, which: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache.keep("kind", {}, TENSORS)
    assert cache.folder is not None
    (file,) = data(cache) if which == "data" else (cache.folder / "kind").glob("*.json")
    DAMAGES[damage](file)
    assert again(cache).find("kind", {}) is None
    assert f"{file} is corrupt" in caplog.text
    assert not file.exists()
    assert len(list(file.parent.glob(f"{file.name}.*{store.CORRUPT}"))) == 1
    again(cache).keep("kind", {}, TENSORS)
    assert again(cache).find("kind", {}) is not None


def test_an_index_of_something_else_is_not_believed(cache: ArtifactCache, caplog: pytest.LogCaptureFixture) -> None:
    cache.keep("kind", {"x": 1}, TENSORS)
    assert cache.folder is not None
    (index,) = (cache.folder / "kind").glob("*.json")
    other = index.with_name(f"{store.digest({'model': 'm', 'x': 2})}.json")
    index.rename(other)
    assert again(cache).find("kind", {"x": 2}) is None
    assert "it is of something else" in caplog.text


def test_an_index_whose_content_has_been_removed_is_none(cache: ArtifactCache) -> None:
    cache.keep("kind", {}, TENSORS)
    data(cache)[0].unlink()
    assert again(cache).find("kind", {}) is None


def test_a_store_that_cannot_be_written_to_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    cache = ArtifactCache({}, "about", tmp_path / "file")
    cache.keep("kind", {}, TENSORS)
    assert "kind is not kept for other runs" in caplog.text
    assert cache.made == []


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    cache = ArtifactCache({}, "about", None)
    cache.keep("kind", {}, TENSORS)
    assert cache.find("kind", {}) is None
    assert not list(tmp_path.iterdir())


WRITER = """
import sys, torch
from pathlib import Path
from mwanda.artifacts.store import ArtifactCache
for step in range(40):
    cache = ArtifactCache({"step": step % 4}, "about", Path(sys.argv[1]))
    found = cache.find("kind", {})
    wanted = torch.full((20000,), float(step % 4))
    if found is not None and not found.tensors["a"].equal(wanted):
        sys.exit("wrong content")
    cache.keep("kind", {}, {"a": wanted})
"""


def test_many_writers_and_readers_at_once_meet_whole_artifacts_only(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "store")]
    environment = os.environ | {"PYTHONPATH": str(CONF.parent)}
    writers = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(4)
    ]
    assert [(writer.communicate()[0], writer.returncode) for writer in writers] == [("", 0)] * 4
    assert len(store.entries(tmp_path / "store")) == 4
    assert len(list((tmp_path / "store" / store.DATA).iterdir())) == 4


# ---- runs


SETTINGS = {
    "one-shot": ("pruner=oneshot", "schedule=owl_cwl", "criterion=mwanda"),
    "one-shot, second moments": ("pruner=oneshot", "criterion=sparsegpt"),
    "one-shot, balanced second moments": (
        "pruner=oneshot",
        "criterion=wanda",
        "solver=swap",
        "calibration.weights=balanced",
    ),
    "one-shot, blocks on disk": ("pruner=oneshot", "schedule=cwl", "criterion=wanda", "model.offload=disk"),
    "prune while calibrating": ("pruner=arrival", "schedule=owl", "criterion=wanda"),
    "without statistics": ("criterion=magnitude", "schedule=cwl"),
    "tasks": ("evaluation=full", "evaluation.tasks=[parallel_cloze]", "evaluation.limit=4", "schedule=uniform"),
}
KINDS = {
    "one-shot": ["blocks", "dense perplexity", "statistics"],
    "one-shot, second moments": ["blocks", "dense perplexity", "statistics"],
    "one-shot, balanced second moments": ["blocks", "dense perplexity", "statistics"],
    "one-shot, blocks on disk": ["blocks", "dense perplexity", "statistics"],
    "prune while calibrating": ["blocks", "dense perplexity", "signals"],
    "without statistics": ["blocks", "dense perplexity", "signals"],
    "tasks": ["blocks", "dense perplexity", "dense scores"],
}


@pytest.mark.parametrize("name", SETTINGS)
def test_results_are_the_same_to_the_bit_with_and_without(model: Path, tmp_path: Path, name: str) -> None:
    without = tiny_job.run(model, tmp_path / "without", *SETTINGS[name], "artifacts=false")
    first = tiny_job.run(model, tmp_path / "first", *SETTINGS[name], "artifacts=true")
    second = tiny_job.run(model, tmp_path / "second", *SETTINGS[name], "artifacts=true")
    assert without["artifacts"] == {"reused": [], "made": []}
    assert first["artifacts"]["reused"] == second["artifacts"]["made"] == []
    assert first["artifacts"]["made"] == second["artifacts"]["reused"]
    assert sorted(each["kind"] for each in first["artifacts"]["made"]) == KINDS[name]
    for results in (first, second):
        for key in NUMBERS:
            assert json.dumps(results[key]) == json.dumps(without[key]), key


def test_one_pass_serves_all_criteria_schedules_and_sparsities(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[str] = []
    run = Walk.run
    monkeypatch.setattr(Walk, "run", lambda self, visitor: passes.append(visitor.phase) or run(self, visitor))
    measured: list[str] = []
    measure, signature = Perplexity.measure, inspect.signature(Perplexity.measure)

    def counted(*args: Any, **named: Any) -> Any:
        measured.append(signature.bind(*args, **named).arguments["which"])
        return measure(*args, **named)

    monkeypatch.setattr(Perplexity, "measure", counted)
    runs = [
        (criterion, schedule, sparsity)
        for criterion in ("wanda", "mwanda", "ria")
        for schedule in ("uniform", "owl_cwl")
        for sparsity in (0.3, 0.6)
    ]
    for number, (criterion, schedule, sparsity) in enumerate(runs):
        chosen = (f"criterion={criterion}", f"schedule={schedule}", f"sparsity={sparsity}")
        tiny_job.run(model, tmp_path / str(number), "pruner=oneshot", "artifacts=true", *chosen)
    assert passes == ["dense"]
    assert measured == ["dense"] + ["pruned"] * len(runs)


@pytest.mark.parametrize(
    ("changes", "still"),
    [
        (("calibration.seed=5",), ["dense perplexity"]),
        (("seed=5", "calibration.seed=0"), ["blocks", "statistics"]),
        (("evaluation.sentences=3",), ["blocks", "statistics"]),
        (("evaluation.resamples=200",), ["blocks", "statistics"]),
        (("langs.codes=[eng_Latn,hin_Deva]",), []),
        (("model.dtype=bfloat16",), []),
        (("pruner.batch_size=2",), ["blocks", "dense perplexity"]),
        (("calibration.weights=balanced",), ["blocks", "dense perplexity"]),
        (("calibration.weights={swh_Latn: 2}",), ["blocks", "dense perplexity"]),
        (("sparsity=0.1", "name=another"), ["blocks", "dense perplexity", "statistics"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_what_they_depend_on_is_in_their_key(
    model: Path, tmp_path: Path, changes: tuple[str, ...], still: list[str]
) -> None:
    settings = ("pruner=oneshot", "artifacts=true", "seed=0")
    tiny_job.run(model, tmp_path / "first", *settings)
    found = tiny_job.run(model, tmp_path / "second", *settings, *changes)["artifacts"]
    assert sorted(each["kind"] for each in found["reused"]) == still


def test_other_weights_in_the_same_place_are_another_model(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = save_tiny_model("llama", tmp_path / "model")
    tiny_job.run(model, tmp_path / "first", "artifacts=true")
    weights = load_file(model / "model.safetensors")
    save_file({name: value * 1.5 for name, value in weights.items()}, model / "model.safetensors", {"format": "pt"})
    assert tiny_job.run(model, tmp_path / "second", "artifacts=true")["artifacts"]["reused"] == []


def test_the_code_that_artifacts_come_from_is_in_their_key(tmp_path: Path) -> None:
    for room in ("one", "two"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "module.py").write_text("x = 1\n")
    before = store.code_digest(tmp_path, ["one"])
    (tmp_path / "two" / "module.py").write_text("x = 2\n")
    assert store.code_digest(tmp_path, ["one"]) == before
    for file in ("module.py", "shares.yaml"):
        (tmp_path / "one" / file).write_text("x: 2\n")
        assert store.code_digest(tmp_path, ["one"]) != before
        before = store.code_digest(tmp_path, ["one"])
    assert set(store.ROOMS) <= {path.name for path in Path(store.__file__).parents[1].iterdir()}


def test_a_perplexity_is_the_same_after_storing_infinities_and_missing_intervals(cache: ArtifactCache) -> None:
    measured = {"eng_Latn": LanguagePerplexity(float("inf"), 1.5, 3, 4, float("nan"), float("inf"))}
    for _ in range(2):
        found = reuse.dense_perplexity(again(cache), Perplexity(), {}, 0, lambda: measured)
        assert repr(found) == repr(measured)


def test_scores_are_the_same_after_storing_tuples_and_numbers_of_numpy(cache: ArtifactCache) -> None:
    import numpy

    made = Scores({"task": {"bleu": {("leaf", 0): ("a", ["b", ("c",)])}, "acc": {("leaf", 1): numpy.float64(0.1)}}})
    for _ in range(2):
        assert reuse.dense_scores(again(cache), Harness(), [], 0, lambda: made) == made


# ---- the command


def age(folder: Path, kind: str, seconds: float) -> None:
    (index,) = (folder / kind).glob("*.json")
    os.utime(index, (time.time() - seconds,) * 2)


def test_the_command_lists_and_prunes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = store.store()
    for number, kind in enumerate(("old", "middle", "new")):
        ArtifactCache({}, "my [model]", place).keep(kind, {}, {"a": torch.full((1000,), float(number))})
        age(place, kind, (3 - number) * 86400)
    assert __main__.main([]) == 0
    printed = capsys.readouterr().out
    assert [kind for kind in printed.split() if kind in ("old", "middle", "new")] == ["new", "middle", "old"]
    assert "my [model]" in printed
    assert "3 artifacts" in printed
    __main__.main(["prune", "--older-than", "60h"])
    assert "1 removed, 2 left" in capsys.readouterr().out
    assert [entry.kind for entry in store.entries(place)] == ["new", "middle"]
    __main__.main(["prune", "--max-size", "6K"])
    assert [entry.kind for entry in store.entries(place)] == ["new"]
    assert len(list((place / store.DATA).iterdir())) == 1
    __main__.main(["prune", "--all"])
    assert store.entries(place) == []
    assert list((place / store.DATA).iterdir()) == []


def test_reading_one_keeps_it_from_being_pruned(cache: ArtifactCache) -> None:
    assert cache.folder is not None
    cache.keep("kind", {}, TENSORS)
    age(cache.folder, "kind", 10 * 86400)
    again(cache).find("kind", {})
    assert store.prune(cache.folder, older_than=86400) == 0


def test_content_that_is_just_being_written_is_left_alone_and_what_was_abandoned_is_not(
    cache: ArtifactCache,
) -> None:
    assert cache.folder is not None
    cache.keep("kind", {}, TENSORS)
    fresh, abandoned = (cache.folder / store.DATA / name for name in (f".new.1{UNFINISHED}", f".new.2{UNFINISHED}"))
    for file in (fresh, abandoned):
        file.touch()
    os.utime(abandoned, (0, 0))
    assert store.prune(cache.folder, older_than=86400) == 0
    assert fresh.exists()
    assert not abandoned.exists()
    assert again(cache).find("kind", {}) is not None


@pytest.mark.parametrize("amount", ["soon", "3x", "-1d", ""])
def test_what_is_no_amount_is_refused(amount: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        __main__.main(["prune", f"--older-than={amount}"])
    assert end.value.code == 2
    assert "is no amount, as 30d is one" in capsys.readouterr().err


def test_what_is_not_of_the_store_is_never_removed(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    for name in ("data/mine.safetensors", "data/new", "data/sub/mine", "notes/a.json", f"notes/{'a' * 32}.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"data": "x"}')
        os.utime(folder / name, (0, 0))
    before = sorted(folder.rglob("*"))
    assert __main__.main(["--folder", str(folder), "prune", "--all"]) == 0
    assert __main__.main(["--folder", str(folder), "prune", "--older-than", "1d"]) == 0
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("name", ["../../mine", "/etc/hostname", "..", "", "a" * 63, None, 3, ["a"], {"a": 1}])
def test_an_index_that_names_a_file_outside_touches_nothing_there(
    cache: ArtifactCache, name: object, caplog: pytest.LogCaptureFixture
) -> None:
    cache.keep("kind", {}, TENSORS)
    assert cache.folder is not None
    mine = cache.folder.parent / "mine.safetensors"
    mine.write_text("precious")
    (index,) = (cache.folder / "kind").glob("*.json")
    index.write_text(json.dumps(json.loads(index.read_text()) | {"data": name}))
    os.utime(index, (0, 0))
    assert store.entries(cache.folder) == []
    assert store.prune(cache.folder, everything=True) == 0
    cache.keep("other", {}, TENSORS)
    assert again(cache).find("kind", {}) is None
    assert "which is no checksum" in caplog.text
    assert mine.read_text() == "precious"
    assert len(data(cache)) == 1
