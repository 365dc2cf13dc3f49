"""Which runs are found below folders, and what is said of those that are not complete."""

import json
from pathlib import Path

import pytest
from synthetic_results import results, save

from mwanda.comparison.records import find_runs
from mwanda.errors import ConfigurationError
from mwanda.job.status import Reporter, note_end
from mwanda.system.files import write_json


def test_every_run_is_found_once_and_named_shortly(tmp_path: Path) -> None:
    save(tmp_path / "sweep" / "0", results())
    save(tmp_path / "sweep" / "1", results())
    runs, unfinished = find_runs([tmp_path, tmp_path / "sweep"])
    assert [run.name for run in runs] == ["0", "1"]
    assert unfinished == []


def test_what_is_not_complete_is_listed_with_the_reason(tmp_path: Path) -> None:
    save(tmp_path / "done", results())
    failure = {"type": "CalibrationError", "message": "inputs are not finite"}
    save(tmp_path / "failed", {**results(), "status": "failed", "error": failure})
    (save(tmp_path / "killed", {}) / "results.json").unlink()
    (save(tmp_path / "torn", {}) / "results.json").write_text("{")
    runs, unfinished = find_runs([tmp_path])
    assert [run.name for run in runs] == ["done"]
    assert {each.name: (each.status, each.reason.split(":")[0]) for each in unfinished} == {
        "failed": ("failed", "CalibrationError"),
        "killed": ("unfinished", "no results.json and no status.json"),
        "torn": ("unreadable", "results.json"),
    }


def test_a_run_that_goes_on_is_told_from_one_that_was_killed_and_one_that_is_gone(tmp_path: Path) -> None:
    for name in ("running", "killed", "gone", "again", "refused", "stopped"):
        (save(tmp_path / name, {}) / "results.json").unlink()
        Reporter(tmp_path / name, "hash", [], name).stage("prune")
    for name in ("killed", "gone"):  # as if by processes that are no more
        said = json.loads((tmp_path / name / "status.json").read_text())
        write_json(tmp_path / name / "status.json", said | {"born": said["born"] - 1000})
    note_end(tmp_path / "killed", "SIGKILL", "the process was killed")
    failure = {"type": "MemoryError", "message": "of the attempt before"}
    write_json(tmp_path / "again" / "results.json", {**results(), "status": "failed", "error": failure})
    refusal = json.loads((tmp_path / "refused" / "status.json").read_text())
    exception = {"type": "CorpusError", "message": "no text"}
    write_json(tmp_path / "refused" / "status.json", refusal | {"state": "failed", "exception": exception})
    exception = {"type": "KeyboardInterrupt", "message": ""}
    write_json(tmp_path / "stopped" / "status.json", refusal | {"state": "interrupted", "exception": exception})
    runs, unfinished = find_runs([tmp_path])
    assert runs == []
    assert {each.name: (each.status, each.reason) for each in unfinished} == {
        "running": ("running", "prune"),
        "killed": ("failed", "SIGKILL: the process was killed"),
        "gone": ("lost", "the process is gone without a word (killed?)"),
        "again": ("running", "prune"),
        "refused": ("failed", "CorpusError: no text"),
        "stopped": ("interrupted", "KeyboardInterrupt"),
    }


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    save(tmp_path / "run", results())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "results.json").write_text('{"score": 1}')
    (tmp_path / "another").mkdir()
    (tmp_path / "another" / "config.yaml").write_text("a: 1\n")
    runs, unfinished = find_runs([tmp_path])
    assert ([run.name for run in runs], unfinished) == (["run"], [])


def test_no_folder_and_no_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no such folder"):
        find_runs([tmp_path / "nothing"])
    with pytest.raises(ConfigurationError, match=r"there is no results\.json below"):
        find_runs([tmp_path])
