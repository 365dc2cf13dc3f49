"""Whole jobs on models that are unlike a plain decoder, and on models that stay on disk."""

from pathlib import Path
from typing import Any

import pytest
import tiny_job
from tiny_models import save_tiny_model, save_untold_model

from mwanda.errors import ModelError
from mwanda.job.run import run as run_spec


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> "Folders":
    return Folders(tmp_path_factory.mktemp("models"))


class Folders:
    """Tiny models, each saved when it is first asked for."""

    def __init__(self, place: Path):
        self.place = place

    def __getitem__(self, family: str) -> Path:
        folder = self.place / family
        return folder if folder.is_dir() else save_tiny_model(family, folder)


def run(model: Path, folder: Path, *settings: str) -> dict[str, Any]:
    """Run a job without the evaluation that is not asked for."""
    overrides = tiny_job.without_evaluation(model, *settings)
    results = run_spec(tiny_job.spec(folder, overrides))
    assert results is not None
    return results


@pytest.mark.parametrize(("order", "criterion"), [("oneshot", "magnitude"), ("oneshot", "wanda"), ("block", "wanda")])
def test_what_reads_text_is_pruned_and_not_the_larger_tower(
    folders: Folders, tmp_path: Path, order: str, criterion: str
) -> None:
    results = run(folders["gemma3"], tmp_path / "run", f"pruner={order}", f"criterion={criterion}")
    pruned = {each["name"].rpartition(".layers.")[0] for each in results["sparsity"]["per_matrix"]}
    assert pruned == {"model.language_model"}
    assert all(each["zeros"] > 0 for each in results["sparsity"]["per_matrix"])
    (tower,) = [each for each in results["model"]["left_dense"] if each["what"].startswith("model.vision_tower: ")]
    assert tower["weights"] > 2 * results["model"]["prunable_parameters"]
    left = sum(each["weights"] for each in results["model"]["left_dense"])
    assert left + results["model"]["prunable_parameters"] == results["model"]["parameters"]


EVALUATIONS = {
    "none": ("evaluation=none",),
    "perplexity": ("evaluation=perplexity", "evaluation.sentences=4", "evaluation.window=64", "evaluation.stride=64"),
    "harness": ("evaluation=harness", "evaluation.tasks=[parallel_cloze]", "evaluation.limit=2"),
    "full": (
        "evaluation=full",
        "evaluation.tasks=[parallel_match]",
        "evaluation.limit=2",
        "evaluation.sentences=4",
        "evaluation.window=64",
        "evaluation.stride=64",
    ),
}


@pytest.mark.parametrize(
    ("family", "order", "evaluation"),
    [
        ("bloom", "arrival", "perplexity"),
        ("mixtral", "block", "full"),
        ("gemma3", "oneshot", "harness"),
        ("qwen3_next", "arrival", "none"),
    ],
)
def test_a_model_on_disk_gives_what_it_gives_in_memory(
    folders: Folders, tmp_path: Path, family: str, order: str, evaluation: str
) -> None:
    """More than one batch of calibration and of evaluation, so that passes wait for one another."""
    settings = [*EVALUATIONS[evaluation], f"pruner={order}", "pruner.batch_size=2", "schedule=owl", "export=masks"]
    settings += ["evaluation.batch_tokens=64"] if evaluation in ("perplexity", "full") else []
    model = folders[family]
    found, expected = (
        tiny_run(model, tmp_path / where, f"model.offload={where}", *settings) for where in ("disk", "none")
    )
    for part in ("sparsity", "perplexity", "tasks", "model", "schedule"):
        assert_close(found[part], expected[part])
    files = [(tmp_path / where / "masks.safetensors").read_bytes() for where in ("disk", "none")]
    assert files[0] == files[1]


def tiny_run(model: Path, folder: Path, *settings: str) -> dict[str, Any]:
    """Run a job with the evaluation that the settings ask for."""
    own = ("evaluation.", "evaluation=")
    overrides = [each for each in tiny_job.overrides(model) if not each.startswith(own)] + list(settings)
    results = run_spec(tiny_job.spec(folder, overrides))
    assert results is not None
    return results


def assert_close(found: Any, expected: Any) -> None:
    """Compare nested results, numbers up to rounding."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_close(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert_close(ours, theirs)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)
    else:
        assert found == expected


@pytest.mark.parametrize("order", ["oneshot", "block", "arrival"])
def test_a_model_that_enters_its_blocks_several_times_is_refused_before_it_is_loaded(
    tmp_path: Path, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_untold_model("albert", tmp_path / "model", num_hidden_layers=3, embedding_size=8)
    monkeypatch.setattr("mwanda.models.source.PretrainedModel.load", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(ModelError, match=r"enters .* 3 times"):
        run(model, tmp_path / "run", f"pruner={order}", "pruner.checkpoint=false")
    assert not (tmp_path / "run").exists()
