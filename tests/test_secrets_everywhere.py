"""Secrets planted wherever a user can put one are found in no file that is left and in no line that is printed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_job
from tiny_models import save_tiny_model

from mwanda import sbatch
from mwanda.command_line import check
from mwanda.config.compose import run_spec
from mwanda.sweep.plan import Plan, read
from mwanda.system import environment


TOKEN = "hf_AbCdEfGh12345678"
VARIABLES = {"HF_TOKEN": TOKEN, "WANDB_API_KEY": "0123456789abcdef" * 2, "DB_PASSWORD": "grünerZweig99"}
IN_URL = "geheim123"
PARTS = ("AbCdEfGh", "abcdefgh", "0123456789abcdef01", "Zweig99", IN_URL)
"""What of them must not be found, the token in small letters included."""

TYPED = (
    "name=${oc.env:HF_TOKEN}",
    "tracking=wandb",
    "tracking.mode=offline",
    "tracking.tags=[${oc.env:WANDB_API_KEY},tag]",
    f"tracking.group=https://user:{IN_URL}@host/x",
    "tracking.entity=${oc.env:DB_PASSWORD}",
)


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(environment, "_difference", lambda: f"+token = '{TOKEN}'\n" * 3)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny_model("bloom", tmp_path / "model")


def found(folder: Path) -> list[str]:
    """Return the files that hold a part of a secret, in their names or within."""
    paths = [path for path in folder.rglob("*") if any(part in path.name for part in PARTS)]
    paths += [
        path
        for path in folder.rglob("*")
        if path.is_file() and any(part.encode() in path.read_bytes() for part in PARTS)
    ]
    return [str(path) for path in paths]


def test_no_file_of_a_run_holds_a_secret(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / f"of_{TOKEN}"
    tiny_job.run(model, folder, *TYPED, "export=hf")
    assert [each.name for each in (tmp_path / "runs").iterdir()] == ["of_HF_TOKEN"]
    assert found(tmp_path / "runs") == []
    written = tmp_path / "runs" / "of_HF_TOKEN"
    assert (written / "git.diff").read_text() == "+token = '${oc.env:HF_TOKEN}'\n" * 3
    assert "name: ${oc.env:HF_TOKEN}" in (written / "config.yaml").read_text()
    assert "https://***@host/x" in (written / "config.yaml").read_text()


def test_no_file_of_a_run_that_failed_holds_a_secret(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError(f"cannot reach https://user:{IN_URL}@host with {TOKEN}")

    monkeypatch.setattr("mwanda.evaluation.perplexity.Perplexity.measure", fail)
    with pytest.raises(ValueError, match="cannot reach"):
        tiny_job.run(model, tmp_path / "runs" / "run", "tracking=none")
    assert found(tmp_path / "runs") == []
    for name in ("results.json", "status.json", "run.log"):
        told = (tmp_path / "runs" / "run" / name).read_text()
        assert "cannot reach https://***@host with ${oc.env:HF_TOKEN}" in told


def planned(model: Path, tmp_path: Path) -> Plan:
    """Plan a sweep of which the shell has put secrets in the place of variables."""
    typed = tiny_job.overrides(model, f"name=of-{TOKEN}", f"tracking.tags=[{TOKEN}]", "tracking=wandb")
    asked = check(["--multirun", *typed, "sparsity=0.3,0.5", f"sweep.folder={tmp_path}/sweeps"])
    assert asked is not None
    assert asked.sweep is not None
    asked.sweep.save()
    return asked.sweep


def test_a_sweep_is_written_without_secrets_and_its_jobs_are_the_same_nevertheless(model: Path, tmp_path: Path) -> None:
    plan = planned(model, tmp_path)
    assert found(tmp_path / "sweeps") == []
    again = read(plan.folder)
    assert again is not None
    for job in again.jobs:
        spec = run_spec([*job.overrides, f"sweep.name={again.name}"])
        assert spec.config_hash == job.config_hash
        assert spec.config["tracking"]["tags"] == [TOKEN]
    assert len(planned(model, tmp_path).commands) == 1  # typed again, it is the same command


def test_a_script_for_slurm_takes_secrets_from_the_environment(model: Path, tmp_path: Path) -> None:
    typed = [*tiny_job.overrides(model, f"name={TOKEN}"), "sparsity=0.3,0.5", "--dry-run"]
    typed += ["--output", str(tmp_path / "array"), "--setup", f"export HF_TOKEN={TOKEN}"]
    assert sbatch.main(typed) == 0
    assert found(tmp_path / "array") == []
    assert "\nexport HF_TOKEN=$HF_TOKEN\n" in (tmp_path / "array" / "array.sh").read_text()


@pytest.mark.parametrize(
    "typed",
    [
        [f"sparsity={TOKEN}"],
        [f"{TOKEN}=1"],
        ["corpus=local", f"corpus.path=/nowhere/{TOKEN}"],
        ["--cfg", "job", f"name={TOKEN}", f"tracking.group=https://user:{IN_URL}@host"],
        ["hydra.job.name=x", f"output_dir=/proc/{TOKEN}"],
    ],
)
def test_no_line_on_the_terminal_holds_a_secret(typed: list[str], tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, str(root / "run.py"), *typed],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert said
    assert not any(part in said for part in PARTS)
    shutil.rmtree(tmp_path, ignore_errors=True)
