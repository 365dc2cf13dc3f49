"""The script for a card runs without one, writes after every item, and a check that fails is told."""

import json
from pathlib import Path

import gpu
import pytest
import torch


CPU = torch.device("cpu")


@pytest.mark.filterwarnings("ignore")  # of transformers, about models that nobody has trained
def test_every_item_runs_on_the_cpu_on_tiny_shapes(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    gpu.run(gpu.Bench(CPU, tiny=True), list(gpu.EXPECTED), out, seconds=300)
    found = json.loads(out.read_text())
    assert [name for name, item in found["items"].items() if not item["ok"]] == []
    assert list(found["items"]) == list(gpu.EXPECTED)
    assert found["items"]["orders"]["arrival"]["ratio"] > 0


def test_an_item_that_fails_is_written_down_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: gpu.Bench) -> None:
        raise AssertionError("masks differ")

    monkeypatch.setattr(gpu.Bench, "repeated", failing)
    found = gpu.run(gpu.Bench(CPU, tiny=True), ["repeated", "statistics"], tmp_path / "gpu.json", seconds=300)
    assert found["items"]["repeated"]["error"] == "AssertionError: masks differ"
    assert found["items"]["statistics"]["ok"]


def test_no_item_is_begun_when_the_time_is_over(tmp_path: Path) -> None:
    found = gpu.run(gpu.Bench(CPU, tiny=True), ["masks"], tmp_path / "gpu.json", seconds=-1)
    assert list(found["items"]["masks"]) == ["skipped"]
    assert found["items"]["masks"]["skipped"].endswith("of -1 s are left, and it takes 45")


def test_what_some_blocks_take_is_held_against_the_bars_of_a_whole_model() -> None:
    solved = {"spent": {"products": 0.5, "adding up": 0.2, "mirroring": 0.1}, "dense": {"seconds": 1.0}}
    solved["stages"] = {"prune": 1.5, "calibrate": 2.0}
    judged = {name: bar.judge(solved) for name, bar in gpu.BARS["sparsegpt"].items()}
    assert [each["value"] for each in judged.values()] == pytest.approx([8 * 2.5, 8 * 0.8, 8 * 1.5])
    assert [each["met"] for each in judged.values()] == [True, True, False]
    stages = {"masks for the checkpoint": 0.1, "waiting for the checkpoint": 0.2, "statistics": 0.1}
    judged = {name: bar.judge({"spent": stages}) for name, bar in gpu.BARS["stages"].items()}
    assert [each["value"] for each in judged.values()] == [pytest.approx(0.6), pytest.approx(0.2), None]
    assert [each["met"] for each in judged.values()] == [False, True, False]
