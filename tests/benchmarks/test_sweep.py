"""The benchmark of a sweep runs at toy size and tells numbers that differ; nothing is asserted about time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sweep
import tiny_job
from tiny_models import save_tiny_model

from mwanda.job.record import OUTCOME
from mwanda.system.conf import CONF
from mwanda.system.files import write_json


def test_sections_in_which_a_number_differs_are_named(tmp_path: Path) -> None:
    results = {section: {"numbers": [1, 0.5]} for section in OUTCOME}
    write_json(tmp_path / "one" / "results.json", results)
    write_json(tmp_path / "two" / "results.json", results | {"perplexity": {"numbers": [1, 0.5000001]}})
    assert sweep.differing_sections(tmp_path / "one", tmp_path / "one") == []
    assert sweep.differing_sections(tmp_path / "one", tmp_path / "two") == ["perplexity"]


@pytest.mark.parametrize(("count", "expected"), [(0, list(range(9))), (3, [0, 3, 6]), (9, list(range(9)))])
def test_single_runs_are_spread_over_the_jobs(count: int, expected: list[int]) -> None:
    assert sweep.evenly_spread(list(range(9)), count) == expected  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_sweep_and_single_runs_give_the_same_numbers(tmp_path: Path) -> None:
    model = save_tiny_model("llama", tmp_path / "model")
    settings = [each for each in tiny_job.overrides(model) if not each.startswith("artifacts")]
    arguments = ["--folder", str(tmp_path / "bench"), "--singles", "1", *settings, "pruner=oneshot", "sparsity=0.3,0.5"]
    done = subprocess.run(
        [sys.executable, str(CONF.parent / "benchmarks" / "sweep.py"), *arguments],
        env=os.environ | {"PYTHONPATH": str(CONF.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "numbers: all the same" in done.stdout
    found = json.loads((tmp_path / "bench" / "sweep.json").read_text())
    assert (found["jobs"], found["single_runs_measured"]) == (2, 1)
    assert found["single_runs"][0]["differs_in"] == []
