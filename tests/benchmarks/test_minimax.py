"""Rounds of the minimax game on a tiny model: weights follow what was measured, and what is there is not run again."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import minimax
import numpy as np
import pytest
import tiny_job
import yaml
from language_damage import Run
from tiny_models import save_tiny_model

from mwanda.job.run import run


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run the jobs here and not in processes of their own, and return the names of the folders of those that ran."""
    names: list[str] = []

    def here(command: list[str], check: bool) -> None:
        assert check
        assert command[1] == str(minimax.ROOT / "run.py")
        (folder,) = [Path(each.removeprefix("output_dir=")) for each in command if each.startswith("output_dir=")]
        run(tiny_job.spec(folder, command[2:]))
        names.append(folder.name)

    monkeypatch.setattr(minimax, "subprocess", SimpleNamespace(run=here))
    return names


@pytest.fixture
def play(
    tmp_path: Path, started: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], list[str]]:
    """Play three rounds on one sentence, judge on two, and return the lines that are printed of them."""
    model = save_tiny_model("llama", tmp_path / "model")
    arguments = [str(tmp_path / "out"), "--rounds", "3", "--tune", "evaluation.sentences=1"]

    def main() -> list[str]:
        monkeypatch.setattr("sys.argv", ["minimax.py", *arguments, *tiny_job.overrides(model, "criterion=wanda")])
        minimax.main()
        starts = ("round", "weights:", "mean:", "worst:")
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith(starts)]

    return main


def weights(folder: Path) -> dict[str, float]:
    """Return the weights of a run's languages, by its own configuration."""
    found = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["calibration"]["weights"]
    return found if isinstance(found, dict) else {}


def test_weights_follow_the_damage_that_was_measured(tmp_path: Path, play: Callable[[], list[str]]) -> None:
    lines = play()
    rounds = [tmp_path / "out" / f"round-{number}" for number in range(3)]
    measured = [minimax.damages(each) for each in rounds]
    assert weights(rounds[0]) == {}
    for before, after, found in zip(rounds, rounds[1:], measured, strict=False):
        assert weights(after) == pytest.approx(minimax.raised(weights(before), found, 2.0), abs=1e-4)
    lowest = min(range(3), key=lambda number: max(measured[number].values()))
    assert weights(tmp_path / "out" / "weighted") == weights(rounds[lowest])
    assert [line.partition(":")[0] for line in lines] == ["round 0", "round 1", "round 2", "weights", "mean", "worst"]


def test_what_is_there_is_read_and_what_is_not_is_run(
    tmp_path: Path, play: Callable[[], list[str]], started: list[str]
) -> None:
    lines = play()
    assert started == ["round-0", "round-1", "round-2", "equal", "weighted"]
    started.clear()
    assert play() == lines
    assert started == []
    results = tmp_path / "out" / "round-1" / "results.json"
    results.write_text(results.read_text(encoding="utf-8").replace('"complete"', '"interrupted"'), encoding="utf-8")
    assert play() == lines
    assert started == ["round-1"]


def test_the_language_that_lost_more_weighs_more_and_the_mean_stays_one() -> None:
    found = minimax.raised({}, {"eng_Latn": 1.0, "swh_Latn": 3.0}, step=1.5)
    assert found["swh_Latn"] / found["eng_Latn"] == pytest.approx(math.exp(1.5 * (3 - 1) / 3))
    assert np.mean(list(found.values())) == pytest.approx(1)
    again = minimax.raised(found, {"eng_Latn": 2.0, "swh_Latn": 2.0}, step=1.5)
    assert again == pytest.approx(found)


def test_half_the_damage_is_half_of_the_mean_and_of_the_worst() -> None:
    tokens = np.full((2, 8), 10.0)
    added = np.random.default_rng(1).uniform(5, 15, size=(2, 8))
    codes, seen = ("eng_Latn", "swh_Latn"), np.array([True, True])
    equal, weighted = (Run("a/b/c", "0.5", 0.5, codes, 0, seen, scale * added, tokens, 1.0) for scale in (1, 0.5))
    assert minimax.compared(equal, weighted, draws=50) == {
        name: pytest.approx((0.5,) * 3) for name in ("mean", "worst")
    }
