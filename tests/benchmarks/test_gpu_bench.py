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
