"""Every experiment composes, says what it costs, and its first job runs."""

from pathlib import Path

import pytest
import tiny_job
import yaml
from tiny_models import save_tiny_model

from mwanda.command_line import check, experiments, jobs_of, of_experiment
from mwanda.errors import ConfigurationError
from mwanda.job.run import run
from mwanda.system.conf import CONF


EXPERIMENTS = experiments()


def jobs(name: str) -> list[list[str]]:
    """Return the overrides of each job of an experiment."""
    swept, multirun = of_experiment([f"+experiment={name}"])
    return jobs_of([*swept, f"+experiment={name}"], sweep=multirun)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model("llama", tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_job_of_an_experiment_is_valid(name: str) -> None:
    check([f"+experiment={name}"])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_first_job_runs_on_a_tiny_model(name: str, model: Path, tmp_path: Path) -> None:
    more = ("corpus=embedded", "calibration.sequences=16")  # without a hub; enough for half of the languages
    small = [each for each in tiny_job.overrides(model, *more) if not each.startswith("model=")]
    results = run(tiny_job.spec(tmp_path / "run", [*jobs(name)[0], *small]))
    assert results is not None
    assert results["status"] == "complete"


def test_every_experiment_says_its_command_its_cost_and_what_it_shows() -> None:
    failures = []
    for name in EXPERIMENTS:
        text = (CONF.parent / "experiments" / f"{name}.yaml").read_text(encoding="utf-8")
        package, _, command, cost, shows = text.splitlines()[:5]
        opened = (package, command) == ("# @package _global_", f"# python run.py +experiment={name}")
        described = cost.startswith("# Cost: ") and shows.startswith("# Shows: ")
        counted = "runs" not in cost or f"Cost: {len(jobs(name))} runs" in cost
        if not (opened and described and counted and yaml.safe_load(text)["name"] == Path(name).name):
            failures.append(name)
    assert failures == []


def test_the_readme_lists_every_experiment() -> None:
    text = (CONF.parent / "experiments" / "README.md").read_text(encoding="utf-8")
    assert [name for name in EXPERIMENTS if f"+experiment={name}\n" not in text] == []


def test_an_unknown_experiment_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"\+experiment=smok: there is no such choice; choices: smoke"):
        check(["+experiment=smok"])


def test_an_experiment_is_added_and_not_replaced() -> None:
    with pytest.raises(ConfigurationError, match=r"write \+experiment=smoke"):
        check(["experiment=smoke"])
