"""Damaged run folders: comparison and status show the other runs, and name what cannot be shown."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from damage_text import RUNS, Spoil, of, problem, problem_of_table, sound_run
from tiny_models import save_tiny_model

from mwanda import show, status
from mwanda.comparison import __main__ as comparison


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with everything that a run may leave."""
    folder = tmp_path_factory.mktemp("sound")
    return sound_run(save_tiny_model("llama", folder / "model"), folder / "run")


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Iterator[Path]:
    """Two copies of it."""
    for name in ("first", "second"):
        shutil.copytree(sound, tmp_path / "runs" / name)
    yield tmp_path / "runs"
    shutil.rmtree(tmp_path / "runs")


def compare(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[str, str]:
    """Compare the runs; return what was said, and the report."""
    comparison.main([str(folder), "--output", str(folder.parent / "report"), *more])
    return capsys.readouterr().err, (folder.parent / "report" / "report.md").read_text()


def test_there_are_as_many_damages_as_were_tried_before() -> None:
    assert len(RUNS) >= 78


@pytest.mark.parametrize("file", sorted({name.partition(":")[0] for name in RUNS}))
def test_the_other_runs_are_shown(file: str, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All damages of a file at once; benchmarks/robustness.py tries each beside a sound run alone."""
    damages = {f"run{number}": RUNS[name] for number, name in enumerate(RUNS) if name.partition(":")[0] == file}
    for name in ("first", *damages):
        shutil.copytree(sound, tmp_path / "runs" / name)
    for name, damage in damages.items():
        damage.spoil(tmp_path / "runs" / name)
    said, report = compare(tmp_path / "runs", capsys, "--no-plots")
    assert problem(damages, 0, said, report) == "", said
    code = status.main([str(tmp_path / "runs")])
    table = capsys.readouterr().out
    assert problem_of_table(damages, code, table) == "", table


@pytest.mark.parametrize("name", [name for name in RUNS if name.startswith("results.json")])
def test_a_summary_is_shown_or_refused_in_one_line(
    name: str, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(sound, tmp_path / "run"))
    RUNS[name].spoil(folder)
    if name in ("results.json: a section more", "results.json: an infinite perplexity"):
        show.main([str(folder)])
        assert "record: " in capsys.readouterr().out
        return
    with pytest.raises(SystemExit) as ended:
        show.main([str(folder)])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("error: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "spoil",
    [
        RUNS["results.json: cut at 50%"].spoil,
        RUNS["results.json: without sparsity.per_layer"].spoil,
        of("perplexity.aggregate.paired.spread", ...),
        of("timing", 3),
        of("model.left_dense", [{"what": 1}]),
    ],
)
def test_a_run_whose_results_are_damaged_is_done_again(spoil: Spoil, sound: Path, tmp_path: Path) -> None:
    before = json.loads((sound / "results.json").read_text())
    shutil.copytree(sound, tmp_path / "run")
    spoil(tmp_path / "run")
    results = sound_run(sound.parent / "model", tmp_path / "run", "resume=true")
    after = json.loads((results / "results.json").read_text())
    assert after["sparsity"] == before["sparsity"]
    assert after["perplexity"] == before["perplexity"]


def test_pictures_are_drawn_of_what_is_sound(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("inside: bytes", "masks: cut", "results.json: an infinite perplexity"):
        RUNS[name].spoil(folder / "second")
    said, report = compare(folder, capsys)
    assert "second/inside/energy.csv is left out" in said
    assert "second/masks.safetensors is left out" in said
    assert "second: the pruned perplexity of " in said
    assert "inside_energy_0.png" in report


def test_damage_everywhere_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("first", "second"):
        RUNS["results.json: cut at 50%"].spoil(folder / name)
    with pytest.raises(SystemExit) as ended:
        compare(folder, capsys)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "none of 2 runs is complete (first: unreadable, results.json: cannot be read (" in said
    assert said.count("\n") == 1
