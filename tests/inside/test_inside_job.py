"""A job that looks inside: what it leaves, in memory and with blocks on disk; several processes are refused."""

import json
from pathlib import Path

import pytest
import tiny_job
from tiny_models import BLOCKS, save_tiny_model

from mwanda.errors import ConfigurationError
from mwanda.job.run import run as run_spec
from mwanda.system import distributed
from mwanda.system.distributed import World


def run(model: Path, folder: Path, *more: str) -> dict[str, object]:
    overrides = tiny_job.without_evaluation(model, "inside=full", "inside.tokens=12", "inside.neuron_share=0.2", *more)
    results = run_spec(tiny_job.spec(folder, overrides))
    assert results is not None
    return results


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model("llama", tmp_path_factory.mktemp("model"))


def test_a_job_leaves_tables_and_a_summary_wherever_its_blocks_are(model: Path, tmp_path: Path) -> None:
    results = run(model, tmp_path / "memory")
    on_disk = run(model, tmp_path / "disk", "model.offload=disk")
    names = {"energy.csv", "profiles.csv", "masks.csv", "neurons.csv"}
    assert {path.name for path in (tmp_path / "memory" / "inside").iterdir()} == names
    for name in names:
        texts = [(tmp_path / place / "inside" / name).read_text() for place in ("memory", "disk")]
        assert texts[0] == texts[1]
        assert texts[0].count("\n") > 1
    inside = results["inside"]
    assert isinstance(inside, dict)
    assert inside == on_disk["inside"]
    assert inside == json.loads((tmp_path / "memory" / "results.json").read_text())["inside"]
    assert len(inside["per_layer"]) == BLOCKS
    assert set(inside["per_language"]) == set(tiny_job.LANGUAGES)
    assert inside["neurons"]["weights_lost"] == pytest.approx(0.5, abs=0.01)
    timing = results["timing"]
    assert isinstance(timing, dict)
    assert timing["inside"] > 0


def test_several_processes_are_refused_before_a_model_is_loaded(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "join", lambda: World(0, 2))
    with pytest.raises(ConfigurationError, match="inside=full: looks in one process only; choices: none"):
        run(model, tmp_path / "run")
    assert not (tmp_path / "run").exists()
