"""Trackio: what it holds of a run, and that no trouble of it reaches the job."""

import json
import os
import subprocess
import sys
from pathlib import Path
from threading import Event
from time import monotonic
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mwanda.tracking import RunIdentity
from mwanda.tracking.trackio import Trackio


ROOT = Path(__file__).parents[2]
TRACKED = """
import json, trackio
from pathlib import Path
from mwanda.tracking import RunIdentity
from mwanda.tracking.trackio import Trackio

results = {
    "status": "complete",
    "sparsity": {"achieved": 0.49, "per_layer": [{"layer": 0, "target": 0.4, "achieved": 0.41}]},
    "perplexity": {"dense": {"swh_Latn": {"perplexity": 10.0}}, "pruned": {"swh_Latn": {"perplexity": 15.0}}},
}
tracker = Trackio(finish_timeout=60)
tracker.start(RunIdentity("0f3a", "bloom", "ablation", "run", ("mwanda",), Path()), {"sparsity": 0.5})
tracker.log_stage("load", 1.5)
tracker.log_results(results)
tracker.finish()
(run,) = trackio.Api().runs("mwanda")
from trackio.sqlite_storage import SQLiteStorage
print(json.dumps([run.name, run.config, SQLiteStorage.get_logs("mwanda", run.name)]))
"""


def test_the_real_one_holds_configuration_numbers_and_tables(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRACKED],
        env=os.environ | {"TRACKIO_DIR": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    name, config, rows = json.loads(done.stdout)  # so nothing else is printed
    assert name == "bloom 0f3a"
    assert (config["sparsity"], config["tags"], config["_Group"]) == (0.5, ["mwanda"], "ablation")
    values = {key: value for row in rows for key, value in row.items()}
    assert (values["seconds/load"], values["ratio/swh_Latn"], values["failed"]) == (1.5, 1.5, 0)
    assert {"languages", "layers"} <= values.keys()


def fake(monkeypatch: pytest.MonkeyPatch, init: Any) -> None:
    module = ModuleType("trackio")
    vars(module).update(init=init, run=SimpleNamespace(), utils=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "trackio", module)


def track(tmp_path: Path, seconds: float) -> float:
    began = monotonic()
    tracker = Trackio(finish_timeout=seconds)
    tracker.start(RunIdentity("0f3a", "bloom", None, "run", (), tmp_path), {})
    tracker.log_stage("load", 1.0)
    tracker.finish()
    return monotonic() - began


def test_one_that_hangs_costs_no_more_than_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    never = Event()
    fake(monkeypatch, lambda **_: never.wait(60))
    assert track(tmp_path, 0.3) < 5
    never.set()
    assert [record.getMessage() for record in caplog.records] == [
        "Trackio did not finish within 0.3 s (tracking.finish_timeout)"
    ]


def test_one_that_fails_costs_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def init(**_: Any) -> None:
        raise OSError("no room")

    fake(monkeypatch, init)
    track(tmp_path, 30)
    (record,) = caplog.records
    assert record.getMessage().startswith("Trackio is off for this job (OSError: no room)")
