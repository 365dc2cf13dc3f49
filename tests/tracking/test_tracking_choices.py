"""The files of conf/tracking: each makes its tracker with the knobs and defaults that its class has."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from mwanda.tracking import RunIdentity, Tracker
from mwanda.tracking.none import NoTracking
from mwanda.tracking.trackio import Trackio
from mwanda.tracking.weights_and_biases import WeightsAndBiases


CHOICES = Path(__file__).parents[2] / "conf" / "tracking"
TRACKERS = {"none": NoTracking, "trackio": Trackio, "wandb": WeightsAndBiases}


def choice(name: str) -> dict[str, Any]:
    content = OmegaConf.to_container(OmegaConf.load(CHOICES / f"{name}.yaml"))
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def test_every_choice_is_known_here() -> None:
    assert {file.stem for file in CHOICES.iterdir()} == set(TRACKERS)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_choice_makes_its_tracker(name: str) -> None:
    tracker: Tracker = instantiate(choice(name))
    assert type(tracker) is TRACKERS[name]


@pytest.mark.parametrize("name", TRACKERS)
def test_a_choice_names_every_knob_with_its_default(name: str) -> None:
    knobs = choice(name)
    del knobs["_target_"]
    assert list(knobs) == [knob.name for knob in fields(TRACKERS[name])]
    defaults = {knob.name: knob.default for knob in fields(TRACKERS[name])}
    assert {key: tuple(value) if isinstance(value, list) else value for key, value in knobs.items()} == defaults


@pytest.mark.parametrize("name", TRACKERS)
def test_a_choice_opens_with_what_it_is_and_the_command_that_uses_it(name: str) -> None:
    first, second, third = (CHOICES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[:3]
    assert first.startswith("# ")
    assert first.endswith(".")
    assert second.startswith(f"# python run.py tracking={name}")
    assert third.startswith("_target_: ")


def test_nothing_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level("DEBUG")
    tracker: Tracker = NoTracking()
    tracker.start(RunIdentity("id", "name", "group", "run", ("tag",), tmp_path / "job"), {"seed": 1})
    tracker.log_stage("load", 1.0)
    tracker.log_results({"status": "complete"})
    tracker.finish(failed=True)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
