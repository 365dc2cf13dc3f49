"""status.json: what it says at any time, and what a reader makes of it."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import tiny_job
from tiny_models import save_tiny_model

from mwanda import status as status_command
from mwanda.errors import ConfigurationError, ModelError
from mwanda.job import status
from mwanda.job.results import SCHEMA, write_results
from mwanda.job.run import run
from mwanda.system.files import write_json
from mwanda.system.progress import Silent


HASH = "0123456789abcdef"


def content(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / status.FILE).read_text())
    assert isinstance(found, dict)
    return found


def change(folder: Path, **changes: Any) -> None:
    write_json(folder / status.FILE, content(folder) | changes)


def report(folder: Path) -> status.Reporter:
    return status.Reporter(folder, HASH, ["sparsity=0.5"], "name")


def test_it_is_there_from_the_start_and_tells_who_is_at_work(tmp_path: Path) -> None:
    report(tmp_path)
    found = content(tmp_path)
    assert set(found) == {
        *("schema", "state", "stage", "block", "blocks", "progress", "seconds", "started", "updated", "pid", "born"),
        *("host", "scheduled", "attempt", "exception", "config_hash", "overrides", "name", "code"),
    }
    assert (found["state"], found["stage"], found["pid"], found["attempt"]) == ("running", "start", os.getpid(), 1)
    assert set(found["code"]) == {"commit", "dirty", "difference"}
    assert status.seen(tmp_path) == ("running", found)


def test_progress_is_told_by_stage_and_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "QUICKEST", 0.0)
    reporter, told = report(tmp_path), []
    for title, unit in (("evaluate dense", "tokens"), ("calibrate and prune", "blocks")):
        for _ in status.Watched(Silent(), reporter).track([1, 2], title, unit):
            found = content(tmp_path)
            told.append((found["stage"], found["block"], found["blocks"], found["progress"]))
    assert told == [
        ("evaluate dense", None, None, 0.0),
        ("evaluate dense", None, None, 0.5),
        ("prune", 1, 2, 0.0),
        ("prune", 2, 2, 0.5),
    ]


def test_it_is_not_written_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "QUICKEST", 3600.0)
    reporter = report(tmp_path)
    reporter.advance(1, 4, "blocks")
    assert content(tmp_path)["block"] is None
    reporter.stage("prune")
    assert content(tmp_path)["stage"] == "prune"


def test_it_beats_while_nothing_else_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "BEAT", 0.01)
    reporter = report(tmp_path)
    first, until = content(tmp_path)["seconds"], time.monotonic() + 60
    while content(tmp_path)["seconds"] == first:
        assert time.monotonic() < until
        time.sleep(0.01)
    reporter.end("complete")
    last = content(tmp_path)
    time.sleep(0.1)
    assert content(tmp_path) == last


@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_the_next_attempt_is_counted_and_the_error_is_a_line(tmp_path: Path, state: status.State) -> None:
    reporter = report(tmp_path)
    reporter.stage("prune")
    reporter.end(state, ValueError("one\ntwo"))
    reporter.stage("export")  # too late
    found = content(tmp_path)
    assert (found["state"], found["stage"]) == (state, "prune")
    assert found["exception"] == {"type": "ValueError", "message": "one two"}
    report(tmp_path)
    assert (content(tmp_path)["attempt"], content(tmp_path)["exception"]) == (2, None)
    change(tmp_path, state="failed")
    status.Reporter(tmp_path, "another", [], "name")
    assert content(tmp_path)["attempt"] == 1


def test_a_process_that_is_gone_is_lost_and_one_that_works_is_not(tmp_path: Path) -> None:
    report(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        change(tmp_path, pid=process.pid, born=status.started(process.pid))
        assert status.seen(tmp_path)[0] == "running"  # type: ignore[index]
        process.kill()
        process.wait()
    assert status.seen(tmp_path)[0] == "lost"  # type: ignore[index]
    change(tmp_path, pid=os.getpid(), born=content(tmp_path)["born"] - 3600)  # the number was given again
    assert status.seen(tmp_path)[0] == "lost"  # type: ignore[index]
    report(tmp_path)  # and can be taken up
    assert content(tmp_path)["attempt"] == 2


def test_of_two_that_start_at_once_one_has_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = status.read
    with monkeypatch.context() as patch:  # the other one writes after we have looked
        patch.setattr(status, "read", lambda folder: (patch.setattr(status, "read", read), report(folder))[0])
        with pytest.raises(ConfigurationError, match="another process is at work there"):
            report(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [status.FILE]


def test_a_process_on_another_machine_is_lost_when_it_is_silent(tmp_path: Path) -> None:
    report(tmp_path)
    for seconds, expected in ((status.STALE / 2, "running"), (status.STALE * 2, "lost")):
        silent = datetime.now(UTC) - timedelta(seconds=seconds)
        change(tmp_path, host="another", updated=silent.isoformat())
        assert status.seen(tmp_path)[0] == expected  # type: ignore[index]


def test_a_job_that_slurm_starts_again_does_not_wait_for_the_attempt_that_it_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("JOB_ID", "9"), ("ARRAY_JOB_ID", "7"), ("ARRAY_TASK_ID", "2")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    report(tmp_path)
    assert content(tmp_path)["scheduled"] == ["7_2", "0"]
    change(tmp_path, host="another")
    with pytest.raises(ConfigurationError, match="another process is at work there"):
        report(tmp_path)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    report(tmp_path)
    assert (content(tmp_path)["scheduled"], content(tmp_path)["attempt"]) == (["7_2", "1"], 2)
    change(tmp_path, host="another")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    with pytest.raises(ConfigurationError, match="another process is at work there"):
        report(tmp_path)


def test_complete_results_count_more_than_a_process_that_died_before_it_could_say_so(tmp_path: Path) -> None:
    report(tmp_path)
    change(tmp_path, born=0)
    write_results(tmp_path, {"schema": SCHEMA, "status": "complete", "config_hash": HASH})
    assert status.seen(tmp_path)[0] == "complete"  # type: ignore[index]
    write_results(tmp_path, {"schema": SCHEMA, "status": "complete", "config_hash": "another"})
    assert status.seen(tmp_path)[0] == "lost"  # type: ignore[index]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema": "another"}'])
def test_what_is_no_status_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / status.FILE).write_text(text)
    assert status.seen(tmp_path) is None


def test_a_process_that_does_not_write_leaves_nothing(tmp_path: Path) -> None:
    reporter = status.Reporter(None, HASH, [], "name")
    reporter.stage("load")
    reporter.advance(1, 2, "blocks")
    reporter.end("complete")
    assert not list(tmp_path.iterdir())


def test_the_command_shows_single_runs_and_fails_with_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, state in (("day/good", "complete"), ("day/bad", "failed")):
        status.Reporter(tmp_path / name, HASH, [], name).end(state, None if state == "complete" else KeyError("[no]"))  # type: ignore[arg-type]
    assert status_command.main([str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "2 runs: 1 failed, 1 complete" in printed
    assert "day/bad" in printed
    assert "KeyError: '[no]'" in printed
    assert status_command.main([str(tmp_path / "day" / "good")]) == 0
    with pytest.raises(SystemExit) as end:
        status_command.main([str(tmp_path / "nowhere")])
    assert end.value.code == 2


@pytest.mark.parametrize("study", [None, "sweep"])
def test_a_run_reports_its_stages_and_a_refused_one_stays_only_in_a_sweep(
    study: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[str] = []
    tell = status.Reporter.stage
    monkeypatch.setattr(status.Reporter, "stage", lambda self, stage: stages.append(stage) or tell(self, stage))
    model = save_tiny_model("llama", tmp_path / "model")
    folder = tmp_path / "runs" / "run"
    spec = replace(tiny_job.spec(folder, tiny_job.overrides(model, "export=masks")), overrides=("typed",), study=study)
    run(spec)
    assert list(dict.fromkeys(stages)) == ["load", "evaluate dense", "prune", "evaluate pruned", "export"]
    assert (content(folder)["state"], content(folder)["overrides"]) == ("complete", ["typed"])
    (model / "model.safetensors").unlink()
    with pytest.raises(ModelError):
        run(replace(spec, folder=tmp_path / "runs" / "refused"))
    assert (tmp_path / "runs" / "refused").exists() == (study is not None)
    if study is not None:
        found = content(tmp_path / "runs" / "refused")
        assert (found["state"], found["stage"], found["exception"]["type"]) == ("failed", "load", "ModelError")
