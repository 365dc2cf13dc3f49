"""Sweeps on a real SLURM: what it does to jobs loses nothing, and what became of each is said."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_tiny_model, tiny_model, tiny_tokenizer

from mwanda.job import status
from mwanda.system.conf import CONF


pytestmark = pytest.mark.slurm

ROOT = CONF.parent
PATIENCE = 240
SETTINGS = (
    "model=bloom",
    "langs=[eng_Latn,swh_Latn]",
    "calibration.sequences=100",
    "calibration.length=128",
    "evaluation=none",
    "tracking.mode=offline",
    "export=masks",
    "pruner.order=block",
    "pruner.batch_size=1",  # slow enough to be interrupted
)
LONG = ("long", "other")
SLOW = 240
"""Blocks of a model that takes half a minute on a machine with nothing else to do: it must still run when the others
have ended."""
WAYS = ("launcher", "array")
SENT: dict[str, Sequence[str]] = {
    "launcher": (
        str(ROOT / "run.py"),
        "--multirun",
        "hydra/launcher=slurm",
        "hydra.launcher.cpus_per_task=1",
        "hydra.launcher.mem_gb=1",
        "hydra.launcher.timeout_min=30",
    ),
    "array": ("-m", "mwanda.sbatch", "--cpus=1", "--mem=1G", "--time=30"),
}
"""How a sweep is started, each job with one of the node's processors."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models: `small`, `damaged`, and `long` and `other`, which take longer."""
    folder = tmp_path_factory.mktemp("models")
    save_tiny_model("llama", folder / "small")
    damaged = tiny_model("llama")
    damaged.model.layers[0].mlp.up_proj.weight.data[0, 0] = float("nan")  # type: ignore[union-attr]
    others = [(name, tiny_model("llama", seed, num_hidden_layers=SLOW)) for seed, name in enumerate(LONG)]
    for name, model in [("damaged", damaged), *others]:
        model.save_pretrained(folder / name)
        tiny_tokenizer().save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def whole(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on `long` that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    python(None, str(ROOT / "run.py"), *SETTINGS, f"model.path={models / 'long'}", f"output_dir={folder}")
    return folder


def python(environment: dict[str, str] | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python to its end."""
    env = (environment or dict(os.environ)) | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, timeout=PATIENCE)


def slurm(environment: dict[str, str], *command: str) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.2)


class Runs:
    """The jobs of a sweep by the name of their model."""

    def __init__(self, sweep: Path) -> None:
        self.sweep = sweep

    def folder(self, model: str) -> Path:
        (found,) = (job for job in self.plan if f"/{model}" in "".join(job["overrides"]))
        return self.sweep / str(found["folder"])

    @property
    def plan(self) -> list[dict[str, Any]]:
        jobs: list[dict[str, Any]] = json.loads((self.sweep / "sweep.json").read_text())["jobs"]
        return jobs

    def status(self, model: str) -> dict[str, Any]:
        return status.read(self.folder(model)) or {"state": None, "block": None}

    def state(self, model: str) -> str | None:
        found = status.seen(self.folder(model))
        return found[0] if found else None

    def prunes(self, model: str) -> bool:
        """Whether it has finished a block or two."""
        found = self.status(model)
        return found["state"] == "running" and found["stage"] == "prune" and (found["block"] or 0) >= 3

    def number(self, model: str) -> str:
        """Its number in SLURM."""
        return str(self.status(model)["scheduled"][0])


@pytest.mark.parametrize("way", WAYS)
def test_a_sweep_loses_nothing(way: str, cluster: dict[str, str], models: Path, whole: Path, tmp_path: Path) -> None:
    """One job is done, one fails, one is cancelled, and one is preempted, goes on, and ends as if it had not been."""
    sweep = tmp_path / "with space" / "sweep"
    names = ("small", "damaged", *LONG)
    arguments = [
        *SENT[way],
        *SETTINGS,
        "model.path=" + ",".join(f"'{models / name}'" for name in names),
        f"sweep.folder='{sweep.parent}'",
        f"sweep.name={sweep.name}",
    ]
    environment = cluster | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        runs = Runs(sweep)
        if way == "array":  # it returns at once
            printed, _ = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, printed
            assert "4 jobs, 0 left out" in printed
            assert re.search(r"^SLURM job \d+; scancel \d+ ends it$", printed, flags=re.MULTILINE)
        until(lambda: (sweep / "sweep.json").is_file() or process.poll() is not None, "the sweep was planned")
        until(lambda: all(runs.prunes(name) for name in LONG), "both long runs prune")
        slurm(cluster, "scancel", runs.number("other"))
        until(lambda: runs.state("small") == "complete" and runs.state("damaged") == "failed", "two runs ended")
        until(lambda: runs.number("other") not in running(cluster), "the cancelled job had ended")
        assert runs.state("long") == "running"
        slurm(cluster, "srun", "--partition=urgent", "--cpus-per-task=4", "true")  # takes the place of `long`
        until(lambda: runs.state("long") == "complete", "the preempted run was complete")
        # It tidies up after its results are written.
        until(lambda: not (runs.folder("long") / "checkpoint").exists(), "its checkpoint was gone")
        until(lambda: running(cluster) == [], "its job had left the queue")
        if way == "launcher":
            printed, _ = process.communicate(timeout=PATIENCE)
            assert process.returncode == 1, printed
            assert "4 runs: " in printed
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()

    # Who was ended by scancel has a word left, unless submitit keeps the signal from it.
    assert runs.state("other") == {"array": "interrupted", "launcher": "lost"}[way]
    assert runs.status("long")["attempt"] == 2
    results = json.loads((runs.folder("long") / "results.json").read_text())
    attempts = sorted((runs.folder("long") / "wandb").glob("offline-run-*"))
    assert [place.name.endswith(f"-{results['run_id']}") for place in attempts] == [
        True,
        True,
    ]  # one run to Weights & Biases
    masks, expected = ((folder / "masks.safetensors").read_bytes() for folder in (runs.folder("long"), whole))
    assert masks == expected
    assert not (runs.folder("long") / "checkpoint").exists()
    assert "weights that are not finite" in runs.status("damaged")["exception"]["message"]
    again = python(cluster, "-m", "mwanda.status", str(sweep))
    assert again.returncode == 1
    assert "SparsityError: " in again.stdout
    assert "again, those that failed: python " in again.stdout


@pytest.mark.parametrize("way", WAYS)
def test_an_array_that_the_cluster_does_not_take_is_refused_with_its_limit(
    way: str, cluster: dict[str, str], models: Path, tmp_path: Path
) -> None:
    arguments = [*SENT[way], *SETTINGS, f"model.path={models / 'small'}", "seed=range(0,17)"]
    refused = python(cluster, *arguments, f"sweep.folder={tmp_path}", "sweep.name=sweep")
    assert refused.returncode == 2
    assert "17 jobs are more than an array of this cluster holds (MaxArraySize=16)" in refused.stderr
    assert list(tmp_path.iterdir()) == []
    assert running(cluster) == []


@pytest.mark.parametrize("way", WAYS)
def test_what_the_cluster_refuses_is_said_in_a_line(
    way: str, cluster: dict[str, str], models: Path, tmp_path: Path
) -> None:
    long = {"launcher": "hydra.launcher.timeout_min=600", "array": "--time=600"}[way]  # the partition's limit is 60
    sent = [each for each in SENT[way] if "time" not in each]
    arguments = [*sent, long, *SETTINGS, f"model.path={models / 'small'}", "seed=0,1"]
    refused = python(cluster, *arguments, f"sweep.folder={tmp_path}", "sweep.name=sweep")
    assert refused.returncode == 1
    last = refused.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "Requested time limit is invalid" in last
    assert "Traceback" not in refused.stderr


def running(cluster: dict[str, str]) -> list[str]:
    return slurm(cluster, "squeue", "--noheader", "--array", "--format=%i").split()
