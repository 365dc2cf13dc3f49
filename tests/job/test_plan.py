"""`mode=plan`: what it prints and writes, that it prunes nothing, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_job
from tiny_models import save_tiny_model

from mwanda.errors import ConfigurationError, UnknownKeyError
from mwanda.job.run import run


SPARSITIES = [0.3, 0.5, 0.7]
PLAN = ("mode=plan", "plan.sparsities=[0.3,0.5,0.7]", "plan.draws=2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model("llama", tmp_path_factory.mktemp("llama"))


def planned(model: Path, folder: Path, *more: str) -> dict[str, Any]:
    assert run(tiny_job.spec(folder, tiny_job.without_evaluation(model, *PLAN, *more))) is None
    assert [path.name for path in folder.iterdir()] == ["plan.json"]
    found: dict[str, Any] = json.loads((folder / "plan.json").read_text())
    return found


@pytest.mark.parametrize("schedule", ["uniform", "fisher", "owl", "alphapruning"])
def test_every_schedule_is_planned_for(
    model: Path, tmp_path: Path, schedule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = planned(model, tmp_path / "plan", f"schedule={schedule}")
    assert found["sparsities"] == SPARSITIES
    assert list(found["languages"]) == list(tiny_job.LANGUAGES)
    for cells in found["languages"].values():
        ratios = [cell["log_ratio"] for cell in cells]
        assert ratios == sorted(ratios)
        assert all(0 < cell["low"] < cell["log_ratio"] < cell["high"] for cell in cells)
    said = capsys.readouterr().out
    assert all(word in said for word in ("Swahili", "worst", "0.7", "largest sparsity", "plan.json"))


def test_directional_fisher_is_predicted_to_lose_less_than_uniform(model: Path, tmp_path: Path) -> None:
    found = [
        planned(model, tmp_path / each, f"schedule={each}", "schedule.level=matrix") for each in ("uniform", "fisher")
    ]
    means = [sum(cells[1]["log_ratio"] for cells in each["languages"].values()) for each in found]
    assert means[1] < means[0]


def test_the_largest_sparsity_is_where_the_worst_language_reaches_the_limit(model: Path, tmp_path: Path) -> None:
    worst = planned(model, tmp_path / "first")["languages"]
    limit = max(cells[1]["log_ratio"] for cells in worst.values())
    found = planned(model, tmp_path / "second", f"plan.limit={limit:.12f}")
    assert found["within"] == pytest.approx(0.5, abs=1e-3)
    assert found["surely_within"] < found["within"]
    code = min(worst, key=lambda each: worst[each][1]["log_ratio"])
    other = planned(model, tmp_path / "third", f"plan.limit={limit:.12f}", f"plan.language={code}")
    assert other["within"] > found["within"]
    assert other["language"] == code


def test_a_pattern_of_groups_has_one_sparsity(model: Path, tmp_path: Path) -> None:
    found = planned(model, tmp_path / "plan", "pattern=2of4")
    assert found["sparsities"] == [0.5]
    assert found["within"] is None


def test_a_second_plan_takes_the_damage_from_the_first(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = planned(model, tmp_path / "first", "artifacts=true")
    monkeypatch.setattr("mwanda.pruner.damage.gradient_pass.GradientPass.run", lambda _: pytest.fail("measured again"))
    assert planned(model, tmp_path / "second", "artifacts=true", "plan.sparsities=[0.4]")["sparsities"] == [0.4]
    assert planned(model, tmp_path / "third", "artifacts=true") == first


def test_blocks_on_disk_are_planned_for_alike(model: Path, tmp_path: Path) -> None:
    whole = planned(model, tmp_path / "whole", "schedule=fisher")
    assert planned(model, tmp_path / "parts", "schedule=fisher", "model.offload=disk") == whole


def test_models_without_a_perplexity_are_refused_before_they_are_loaded(tmp_path: Path) -> None:
    encoder = save_tiny_model("xlm-roberta", tmp_path / "encoder")
    for more, word in ((PLAN, "mode=plan"), (("schedule=fisher",), "schedule=fisher")):
        (encoder / "model.safetensors").unlink(missing_ok=True)
        typed = [*tiny_job.without_evaluation(encoder, *more), "model=xlmr", f"model.path={encoder}"]
        with pytest.raises(ConfigurationError, match=f"{word}.*predicts each token from those before it"):
            run(tiny_job.spec(tmp_path / word, [each for each in typed if each != "model=bloom"]))


@pytest.mark.parametrize(
    ("override", "error", "words"),
    [
        ("plan.language=fra_Latn", ConfigurationError, r"plan\.language=fra_Latn.*gives no calibration text.*eng_Latn"),
        ("plan.limit=0", ConfigurationError, r"plan\.limit=0.*greater than 0"),
        ("plan.sparsities=[0.5,1.5]", ConfigurationError, r"plan\.sparsities.*less than 1"),
        ("+plan.limits=3", UnknownKeyError, r"plan\.limits"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    model: Path, tmp_path: Path, override: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        run(tiny_job.spec(tmp_path / "plan", tiny_job.without_evaluation(model, *PLAN, override)))
