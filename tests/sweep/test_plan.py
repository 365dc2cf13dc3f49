"""The plan of a sweep is checked when it is read, and clears what runs have made and nothing else."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mwanda.errors import ConfigurationError, InputError
from mwanda.job import status
from mwanda.job.claim import claim
from mwanda.sweep import plan, worker
from mwanda.sweep.plan import Job, Plan


CODE = {"commit": None, "dirty": None, "difference": None}


def saved(folder: Path, names: tuple[str, ...] = ("a",)) -> Plan:
    """Write a plan of jobs that are to run."""
    made = Plan(folder, [Job(folder / name, ("sparsity=0.5",), "hash", "run") for name in names], [["-m"]], CODE)
    made.save()
    return made


def altered(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Change the plan that a folder holds."""
    saved(folder)
    found = json.loads((folder / plan.FILE).read_text())
    change(found)
    (folder / plan.FILE).write_text(json.dumps(found))
    return folder


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    made = saved(tmp_path / "sweep", ("a", "b"))
    assert plan.read(tmp_path / "sweep") == made
    assert plan.read(tmp_path) is None


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a folder outside": lambda found: found["jobs"][0].update(folder="../../mine"),
    "an absolute folder": lambda found: found["jobs"][0].update(folder="/tmp/mine"),
    "the folder itself": lambda found: found["jobs"][0].update(folder="."),
    "no folder": lambda found: found["jobs"][0].pop("folder"),
    "a number for a folder": lambda found: found["jobs"][0].update(folder=3),
    "a text for overrides": lambda found: found["jobs"][0].update(overrides="sparsity=0.5"),
    "numbers for overrides": lambda found: found["jobs"][0].update(overrides=[1]),
    "another action": lambda found: found["jobs"][0].update(action="remove"),
    "a list for an action": lambda found: found["jobs"][0].update(action=[]),
    "no such command": lambda found: found["jobs"][0].update(command=7),
    "no jobs": lambda found: found.pop("jobs"),
    "a job that is none": lambda found: found["jobs"].append(3),
    "commands that are none": lambda found: found.update(commands=3),
    "another schema": lambda found: found.update(schema="other/1"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_plan_that_says_something_else_is_refused_in_a_line(change: str, tmp_path: Path) -> None:
    folder = altered(tmp_path / "sweep", CHANGES[change])
    for read in (plan.read, lambda place: worker.run_job(place / "a")):
        with pytest.raises(InputError, match=r"sweep\.json: is damaged \(.*\); move it") as error:
            read(folder)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"null", b"[" * 5000])
def test_a_plan_that_is_none_is_refused_and_hides_no_other(content: bytes, tmp_path: Path) -> None:
    saved(tmp_path / "whole")
    saved(tmp_path / "broken")
    (tmp_path / "broken" / plan.FILE).write_bytes(content)
    with pytest.raises(InputError, match=r"sweep\.json: is damaged"):
        plan.read(tmp_path / "broken")
    damaged: list[InputError] = []
    assert [each.name for each in plan.plans(tmp_path, damaged)] == ["whole"]
    assert ["broken/sweep.json: is damaged" in str(error) for error in damaged] == [True]


def run_in(folder: Path) -> None:
    """Leave in a folder what an interrupted run does."""
    with claim(folder):
        status.Reporter(folder, "hash", [], "name").end("failed")
    for name in ("results.json", "run.log", "checkpoint/state.json", "weights/block-00001.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")


def test_clearing_takes_what_a_run_goes_on_from_and_nothing_else(tmp_path: Path) -> None:
    made = saved(tmp_path / "sweep")
    run_in(tmp_path / "sweep" / "a")
    for name in ("weights/mine", "mine"):
        (tmp_path / "sweep" / "a" / name).write_text("precious")
    plan.clear(made)
    left = {path.name for path in (tmp_path / "sweep" / "a").rglob("*") if path.is_file()}
    assert left == {".mwanda-run", "run.log", "mine"}
    assert not (tmp_path / "sweep" / "a" / "checkpoint").exists()


def test_clearing_refuses_a_folder_of_the_users_and_one_that_is_at_work(tmp_path: Path) -> None:
    made = saved(tmp_path / "sweep")
    (tmp_path / "sweep" / "a" / "weights").mkdir(parents=True)
    (tmp_path / "sweep" / "a" / "weights" / "mine").write_text("precious")
    with pytest.raises(ConfigurationError, match="holds weights, which no run has made"):
        plan.clear(made)
    assert (tmp_path / "sweep" / "a" / "weights" / "mine").read_text() == "precious"
    made = saved(tmp_path / "other")
    run_in(tmp_path / "other" / "a")
    with claim(tmp_path / "other" / "a"), pytest.raises(ConfigurationError, match="another process is at work"):
        plan.clear(made)
    assert (tmp_path / "other" / "a" / "checkpoint" / "state.json").exists()


def test_a_sweep_takes_no_folder_that_holds_other_things(tmp_path: Path) -> None:
    plan.check_folder(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    plan.check_folder(tmp_path / "empty")
    saved(tmp_path / "sweep")
    plan.check_folder(tmp_path / "sweep")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "array.sh").write_text("precious")
    with pytest.raises(
        ConfigurationError, match=r"^sweep\.folder=.*mine in it holds array\.sh, which no sweep has made"
    ):
        plan.check_folder(tmp_path / "mine")
    with pytest.raises(ConfigurationError, match=r"array\.sh in it is a file"):
        plan.check_folder(tmp_path / "mine" / "array.sh")


def test_a_plan_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(plan, "write_json", full)
    with pytest.raises(ConfigurationError, match=r"^sweep\.folder=.*cannot be written \(.*No space left on device\)$"):
        saved(tmp_path / "sweep")


def test_a_failure_is_not_written_into_a_folder_of_the_users(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    job = Job(tmp_path / "mine", (), "hash", "run")
    job.folder.mkdir()
    (job.folder / "notes.txt").touch()
    worker.record_failure(job, ValueError("no"))
    assert [path.name for path in job.folder.iterdir()] == ["notes.txt"]
    assert "no status is written" in caplog.text
