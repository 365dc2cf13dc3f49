"""`python -m mwanda.sync` against a server on this machine, with wandb's real client: runs arrive, and arrive once."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from synthetic_results import results, save
from wandb_server import KeptRun, Service, serving


KEY = "0123456789abcdef0123456789abcdef01234567"
ROOT = Path(__file__).parent.parent
TRACKING = {"_target_": "mwanda.tracking.weights_and_biases.WeightsAndBiases", "project": "study", "mode": "offline"}
LONG = 120
PRINTS = {"model": "m", "calibration_text": "c", "evaluation_text": "e"}


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as found:
        yield found


def sync(home: Path, service: Service, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Send, in a process of its own, with nothing of the user's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    own = dict.fromkeys(("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"), str(home))
    own |= {"WANDB_BASE_URL": service.url, "WANDB_API_KEY": KEY, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-m", "mwanda.sync", *map(str, arguments)]
    return subprocess.run(command, cwd=home, env=kept | own, capture_output=True, text=True, timeout=LONG, check=False)


def a_run(folder: Path, run_id: str, **more: Any) -> Path:
    values = {"timing": {"load": 1.0, "total": 2.0}, "group": "swept", "tags": ["wanda"], "fingerprints": PRINTS}
    values["calibration"] = {"tokens_per_language": {"eng_Latn": 1}, "corpus": "embedded"}
    return save(folder, results(run_id=run_id, **values | more), {"seed": 0, "name": "first", "tracking": TRACKING})


def seen(run: KeptRun) -> Any:
    rows = [{key: value for key, value in row.items() if not key.startswith("_")} for row in run.history]
    summary = {
        key: value for key, value in run.summary.items() if isinstance(value, int | float | str) and key[0] != "_"
    }
    return len(rows), rows[:-1], summary, run.artifacts, run.used, run.exit_code


def test_a_run_that_is_sent_twice_arrives_once(service: Service, tmp_path: Path) -> None:
    folder = a_run(tmp_path / "swept" / "a", "aa-bb")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    ended = sync(tmp_path, service, folder)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"sent: {folder}\n", "")
    assert list(service.runs) == ["aa-bb"]
    run = service.runs["aa-bb"]
    assert (run.asked["project"], run.asked["groupName"], run.asked["displayName"]) == ("study", "swept", "first")
    assert (run.asked["jobType"], run.asked["tags"], run.exit_code) == ("run", ["wanda"], 0)
    assert run.summary["ratio/swh_Latn"] == 2.0
    assert [row["seconds/load"] for row in run.history if "seconds/load" in row] == [1.0]
    assert [row["block/index"] for row in run.history if "block/index" in row] == [0, 1, 2]
    assert {"results-aa-bb", "config-aa-bb", "allocation-aa-bb"} <= run.artifacts.keys()
    assert {used.split("@")[0] for used in run.used} == {
        "model-model",
        "calibration-text-embedded",
        "evaluation-text-embedded",
    }
    once, versions = json.dumps(seen(run), default=sorted, sort_keys=True), len(service.artifacts)

    assert sync(tmp_path, service, folder).returncode == 0
    assert json.dumps(seen(run), default=sorted, sort_keys=True) == once
    assert (list(service.runs), len(service.artifacts)) == (["aa-bb"], versions)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert service.unknown == []


def test_a_later_attempt_takes_the_place_of_one_that_failed(service: Service, tmp_path: Path) -> None:
    folder = a_run(tmp_path / "a", "aa-bb")
    complete = (folder / "results.json").read_text()
    failed = {key: value for key, value in json.loads(complete).items() if key != "perplexity"}
    (folder / "results.json").write_text(json.dumps(failed | {"status": "failed"}))
    assert sync(tmp_path, service, folder, "--project=other").returncode == 0
    run = service.runs["aa-bb"]
    assert (run.asked["project"], run.exit_code, run.history, run.summary["status"]) == ("other", 1, [], "failed")
    (folder / "results.json").write_text(complete)
    assert sync(tmp_path, service, folder).returncode == 0
    assert (run.exit_code, len(run.history), run.summary["status"]) == (0, 6, "complete")


def test_what_cannot_be_read_is_named_and_the_rest_is_sent(service: Service, tmp_path: Path) -> None:
    a_run(tmp_path / "runs" / "good", "aa-bb")
    (tmp_path / "runs" / "bad").mkdir()
    (tmp_path / "runs" / "bad" / "results.json").write_text("{")
    ended = sync(tmp_path, service, tmp_path / "runs")
    assert ended.returncode == 1
    assert list(service.runs) == ["aa-bb"]
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"unreadable: {tmp_path / 'runs' / 'bad' / 'results.json'}")


def test_a_server_that_refuses_and_a_lacking_key_are_one_line(service: Service, tmp_path: Path) -> None:
    folder = a_run(tmp_path / "a", "aa-bb")
    ended = sync(tmp_path, service, folder, "--timeout=3", WANDB_BASE_URL="http://127.0.0.1:9")
    assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1)
    assert ended.stderr.startswith(f"not sent: {folder}: ")
    ended = sync(tmp_path, service, folder, WANDB_API_KEY="")
    assert ended.returncode == 1
    assert "WANDB_API_KEY" in ended.stderr


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_runs_is_refused(service: Service, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    ended = sync(tmp_path, service, tmp_path / name)
    assert ended.returncode == 2
    assert str(tmp_path / name) in ended.stderr
