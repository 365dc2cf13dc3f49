"""Sweeps as people start them: real processes that fail, are killed and are started again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import tiny_job
import troublesome
from tiny_models import save_tiny_model

from mwanda import command_line
from mwanda import status as status_command
from mwanda.config import compose
from mwanda.errors import ConfigurationError, InputError, UnknownKeyError
from mwanda.export.masks import load
from mwanda.job import folder, status
from mwanda.job.results import SCHEMA, write_results
from mwanda.sweep import local, overview, plan, slurm, worker
from mwanda.system import conf
from mwanda.system.files import write_json


ROOT = conf.CONF.parent
HASH = "0123456789abcdef"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model("llama", tmp_path_factory.mktemp("llama"))


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}


def hear_interruptions() -> None:
    """Undo what a shell does to whatever it starts in the background: it has SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Kill the process when the test fails, which would wait for it for ever."""
    try:
        yield
    except BaseException:
        for each in (*psutil.Process(process.pid).children(recursive=True), process):
            each.kill()
        raise


def start(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )


def sweep_of(model: Path, folder: Path, *more: str) -> list[str]:
    return [
        *troublesome.choices(folder),
        "--multirun",
        *tiny_job.overrides(model),
        "sweep.name=mine",
        *more,
        *troublesome.ALLOWED,
    ]


def state_of(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / status.FILE).read_text())
    assert isinstance(found, dict)
    return found


def job_of(folder: Path, criterion: str) -> Path:
    (found,) = (folder / "outputs" / "sweeps" / "mine").glob(f"criterion_{criterion}-*")
    return found


def wait_for(file: Path) -> None:
    until = time.monotonic() + 120
    while not file.exists():
        assert time.monotonic() < until, f"{file} does not appear"
        time.sleep(0.1)


def test_a_failing_and_a_killed_job_leave_the_others_intact_and_the_next_start_does_the_rest(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = sweep_of(model, tmp_path, "export=masks", "criterion=raises,killed,wanda", "schedule=owl")
    first = start(tmp_path, *arguments)
    assert first.returncode == 1, first.stderr
    raised, killed, good = (job_of(tmp_path, name) for name in ("raises", "killed", "wanda"))
    assert all(re.fullmatch(r"criterion_[a-z]+-[0-9a-f]{8}", place.name) for place in (raised, killed, good))
    assert [state_of(place)["state"] for place in (raised, killed, good)] == ["failed", "failed", "complete"]
    found = state_of(raised)
    assert found["exception"] == {"type": "ValueError", "message": "the weights are cursed"}
    assert (found["stage"], found["block"], found["blocks"]) == ("prune", 2, 2)
    assert state_of(killed)["exception"]["type"] == "SIGKILL"
    assert "ValueError: the weights" in (raised / local.LOG).read_text()
    assert "Traceback" in (raised / "run.log").read_text()
    assert "complete" in (good / "results.json").read_text()
    assert "3 runs: " in first.stdout
    assert "2 failed" in first.stdout
    assert "ValueError: the weights are cursed" in first.stdout
    (command,) = re.findall(r"again, those that failed: python \S*run\.py (.*)", first.stdout)
    assert command.endswith("rerun=failed")

    monkeypatch.chdir(tmp_path)
    assert status_command.main(["outputs"]) == 1
    seen = capsys.readouterr()
    assert seen.err == ""
    assert "SIGKILL: the process was killed" in seen.out
    assert command in seen.out

    written = (good / "results.json").stat().st_mtime_ns
    (tmp_path / "peace").touch()
    second = start(tmp_path, *arguments)
    assert second.returncode == 0, second.stderr
    assert "1 skipped, 2 complete" in second.stdout or "2 complete, 1 skipped" in second.stdout
    assert (good / "results.json").stat().st_mtime_ns == written
    assert [state_of(place)["attempt"] for place in (raised, killed, good)] == [2, 2, 1]
    # Resumed behind the first block, it has pruned as one that was never killed: all three are Wanda.
    for place in (raised, killed):
        assert not (place / folder.CHECKPOINT).exists()
        masks, others = (load(folder / "masks.safetensors") for folder in (place, good))
        assert all(mask.equal(others[name]) for name, mask in masks.items())
        results, expected = (json.loads((folder / "results.json").read_text()) for folder in (place, good))
        assert [results[key] for key in ("sparsity", "perplexity", "schedule")] == [
            expected[key] for key in ("sparsity", "perplexity", "schedule")
        ]


def test_a_running_sweep_can_be_watched_and_ctrl_c_ends_its_children(model: Path, tmp_path: Path) -> None:
    arguments = sweep_of(model, tmp_path, "criterion=sleeps,wanda")
    with (
        subprocess.Popen(
            [sys.executable, str(ROOT / "run.py"), *arguments],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=hear_interruptions,
        ) as process,
        ended(process),
    ):
        wait_for(tmp_path / "sleeps")
        sleeping = job_of(tmp_path, "sleeps")
        time.sleep(status.QUICKEST)
        rows = {row.place.split("-")[0]: row for row in overview.rows(tmp_path / "outputs" / "sweeps" / "mine")}
        assert {name: row.state for name, row in rows.items()} == {
            "criterion_sleeps": "running",
            "criterion_wanda": "waiting",
        }
        assert status_command.main([str(tmp_path / "outputs")]) == 0
        with pytest.raises(ConfigurationError, match="another process is at work there"):
            status.Reporter(sleeping, HASH, [], "another")
        asked = plan_of(tmp_path, *arguments)
        assert [each.action for each in asked.sweep.current] == ["leave", "run"]
        child = state_of(sleeping)["pid"]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    assert state_of(sleeping)["state"] == "interrupted"
    assert state_of(sleeping)["exception"]["type"] == "KeyboardInterrupt"
    assert not psutil.pid_exists(child)
    assert not list((tmp_path / "outputs" / "sweeps" / "mine").glob("criterion_wanda-*"))


def test_fail_fast_starts_nothing_after_the_first_failure(model: Path, tmp_path: Path) -> None:
    arguments = sweep_of(model, tmp_path, "criterion=raises,wanda", "sweep.fail_fast=true")
    done = start(tmp_path, *arguments)
    assert done.returncode == 1, done.stderr
    assert "1 failed, 1 waiting" in done.stdout


def test_jobs_that_run_at_the_same_time_share_what_they_find(model: Path, tmp_path: Path) -> None:
    settings = ("pruner=oneshot", "schedule=owl_cwl", "artifacts=true")
    done = start(
        tmp_path,
        *sweep_of(model, tmp_path, *settings, "criterion=wanda,mwanda", "sparsity=0.3,0.6", "sweep.parallel=2"),
    )
    assert done.returncode == 0, done.stderr
    places = sorted((tmp_path / "outputs" / "sweeps" / "mine").glob("criterion_*"))
    assert len(places) == 4
    for place in places:
        results = json.loads((place / "results.json").read_text())
        typed = [each for each in state_of(place)["overrides"] if each.startswith(("criterion=", "sparsity="))]
        expected = tiny_job.run(model, tmp_path / "alone" / place.name, *settings, *typed, "artifacts=false")
        for key in ("sparsity", "calibration", "perplexity"):
            assert results[key] == expected[key]
        assert results["schedule"]["signal"] == expected["schedule"]["signal"]
    assert any(json.loads((place / "results.json").read_text())["artifacts"]["reused"] for place in places)


# ---- planning


def plan_of(folder: Path, *arguments: str) -> command_line.Asked:
    before = Path.cwd()
    os.chdir(folder)
    try:
        asked = command_line.check(command_line.with_inline_languages(arguments))
    finally:
        os.chdir(before)
    assert asked is not None
    return asked


def planned(folder: Path, *arguments: str) -> plan.Plan:
    return plan_of(folder, "-m", "model=bloom", "tracking=none", *arguments).sweep


def finish(job: plan.Job, state: str, exports: str | None = None) -> None:
    """Have a job look as if it had been run."""
    reporter = status.Reporter(job.folder, job.config_hash, job.overrides, "name")
    if state == "running":
        return
    if state == "lost":
        reporter.end("interrupted")
        content = state_of(job.folder)
        write_json(job.folder / status.FILE, content | {"state": "running", "born": content["born"] - 100})
        return
    if state == "complete":
        write_results(job.folder, {"schema": SCHEMA, "status": "complete", "config_hash": job.config_hash})
    if exports is not None:
        (job.folder / exports).touch()
    reporter.end(state, None if state == "complete" else ValueError("no"))  # type: ignore[arg-type]


DECISIONS = {
    "unfinished": {"complete": "skip", "failed": "run", "interrupted": "run", "lost": "run", None: "run"},
    "failed": {"complete": "skip", "failed": "run", "interrupted": "run", "lost": "run", None: "skip"},
    "none": {"complete": "skip", "failed": "skip", "interrupted": "skip", "lost": "skip", None: "run"},
    "all": dict.fromkeys(("complete", "failed", "interrupted", "lost", None), "run"),
}


@pytest.mark.parametrize("rerun", DECISIONS)
def test_rerun_decides_by_what_became_of_a_job(rerun: str, tmp_path: Path) -> None:
    states = list(DECISIONS[rerun])
    values = ",".join(str(0.1 * (place + 1)) for place in range(len(states)))
    made = planned(tmp_path, f"sparsity={values}")
    made.save()
    for one, state in zip(made.current, states, strict=True):
        if state is not None:
            finish(one, state)
    again = planned(tmp_path, f"sparsity={values}", f"rerun={rerun}")
    assert again.folder == made.folder
    assert [one.action for one in again.current] == list(DECISIONS[rerun].values())
    if rerun == "all":
        plan.clear(again)
        assert [status.read(one.folder) for one in again.current] == [None] * len(states)
        assert not (again.current[0].folder / "results.json").exists()


def test_a_complete_run_without_the_export_that_is_asked_for_is_run_again(tmp_path: Path) -> None:
    (one,) = planned(tmp_path, "sparsity=0.5", "sweep.name=x").current
    finish(one, "complete")
    assert [each.action for each in planned(tmp_path, "sparsity=0.5", "sweep.name=x").current] == ["skip"]
    (one.folder / "results.json").rename(tmp_path / "away")
    assert [each.action for each in planned(tmp_path, "sparsity=0.5", "sweep.name=x").current] == ["run"]
    (tmp_path / "away").rename(one.folder / "results.json")
    assert [each.action for each in planned(tmp_path, "export=masks", "sweep.name=x").current] == ["run"]
    (one.folder / "masks.safetensors").touch()
    assert [each.action for each in planned(tmp_path, "export=masks", "sweep.name=x").current] == ["skip"]


def test_a_job_is_found_again_when_the_sweep_varies_something_else(tmp_path: Path) -> None:
    first = planned(tmp_path, "sweep.name=x", "sparsity=0.3,0.5")
    first.save()
    finish(first.current[1], "complete")
    second = planned(tmp_path, "sweep.name=x", "sparsity=0.5", "criterion=mwanda,wanda", "tracking=wandb")
    second.save()
    kept, new = second.current
    assert (kept.folder, kept.action) == (first.current[1].folder, "skip")
    assert new.folder.name.startswith("criterion_wanda-")
    found = plan.read(second.folder)
    assert found is not None
    assert {one.config_hash for one in found.jobs} == {one.config_hash for one in (*first.current, *second.current)}
    assert len(found.commands) == 2
    third = planned(tmp_path, "sweep.name=x", "sparsity=0.3,0.5")
    third.save()
    assert len(third.commands) == 2
    assert {one.folder for one in third.current} == {one.folder for one in first.current}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["sparsity=0.3,0.5"], r"sparsity-[0-9a-f]{8}"),
        (["sparsity=0.3,0.5", "sweep.name=Friday.2"], r"Friday\.2"),
        (["sparsity=0.3,0.5", "name=My_Run-"], r"my_run"),
        (["+experiment=schedules"], r"schedules"),
        (["criterion=wanda,ria", "calibration.sequences=30,60"], r"criterion-sequences-[0-9a-f]{8}"),
    ],
)
def test_a_sweep_has_one_folder_whose_name_does_not_change(arguments: list[str], expected: str, tmp_path: Path) -> None:
    first, second = (
        planned(tmp_path, *arguments),
        planned(tmp_path, *arguments, "rerun=failed", "tracking=wandb", "export=hf"),
    )
    assert re.fullmatch(expected, first.name)
    assert first.folder == second.folder == (tmp_path / "outputs" / "sweeps" / first.name)


def test_names_of_jobs_are_safe_short_and_differ(tmp_path: Path) -> None:
    texts = [f"[{','.join(['eng_Latn', 'deu_Latn', 'swh_Latn', code])}]" for code in ("hin_Deva", "arb_Arab")]
    made = planned(tmp_path, f"langs={','.join(texts)}", "seed=0,1", "criterion.variance_weight=0.5,1e-3")
    names = [one.folder.name for one in made.current]
    assert len(set(names)) == 8
    for name in names:
        assert re.fullmatch(r"[a-z0-9._-]{1,120}", name)
        assert re.search(r"seed_[01]-.*variance_weight_(0\.5|0\.001|1e-3)-[0-9a-f]{8}$", name)


def test_equal_jobs_are_one(tmp_path: Path) -> None:
    assert len(planned(tmp_path, "sparsity=0.5,0.50", "criterion=wanda,wanda").current) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["output_dir=here"], ConfigurationError, "output_dir=here: is not used by a sweep, which has sweep.folder"),
        (["hydra.sweep.dir=here"], ConfigurationError, "hydra.sweep.dir=here: is not used by a sweep"),
        (["rerun=al"], ConfigurationError, "rerun=al: is none of its choices; choices: all"),
        (["sweep.parallel=0"], ConfigurationError, r"sweep\.parallel=0: .*greater than 0"),
        (["sweep.name=a/b"], ConfigurationError, r"sweep\.name=a/b: "),
        (["sweep.paralel=2"], UnknownKeyError, "there is no key 'paralel'"),
    ],
)
def test_bad_settings_of_a_sweep_are_refused(
    arguments: list[str], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        planned(tmp_path, "sparsity=0.3,0.5", *arguments)


def test_torchrun_starts_no_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="each of them would start the whole sweep"):
        planned(tmp_path, "sparsity=0.3,0.5")


def test_jobs_at_the_same_time_get_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    assert local.devices_for(1) == []
    assert local.devices_for(2) == ["3", "GPU-5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local.devices_for(2) == []


def test_a_sweep_by_another_launcher_is_planned_and_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="the launcher is not installed")
    monkeypatch.chdir(tmp_path)
    arguments = ["-m", "model=bloom", "tracking=none", "sparsity=0.3,0.5", "hydra/launcher=slurm"]
    handed: list[list[str]] = []
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    monkeypatch.setattr(slurm, "follow", lambda run, plan: run())
    with pytest.raises(SystemExit):
        command_line.start(lambda: handed.append(sys.argv[1:]))
    (typed,) = handed
    assert typed[:-1] == arguments
    folder = tmp_path / "outputs" / "sweeps" / typed[-1].removeprefix("sweep.name=")
    made = plan.read(folder)
    assert made is not None
    assert [each for one in made.jobs for each in one.overrides if "hydra" in each] == []
    # What a job of that launcher knows is its configuration; it finds its place by it.
    spec = compose.run_spec(["model=bloom", "tracking=none", "sparsity=0.3", typed[-1]])
    assert worker.assigned(spec) == made.jobs[0]
    other = worker.assigned(
        replace(compose.run_spec(["model=bloom", "sparsity=0.4", typed[-1]]), overrides=("sparsity=0.4",))
    )
    assert re.fullmatch(r"sparsity_0\.4-[0-9a-f]{8}", other.folder.name)


def test_what_is_not_planned_is_not_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no sweep\.json beside it"):
        worker.run_job(tmp_path / "job")


def test_a_job_that_cannot_begin_says_why_in_its_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    made = planned(tmp_path, f"model.path={save_tiny_model('llama', tmp_path / 'gone')}", "sparsity=0.3,0.5")
    made.code = {"commit": "a", "dirty": False, "difference": None}
    made.save()
    place = made.current[0].folder
    (tmp_path / "gone").rename(tmp_path / "moved")
    assert worker.run_job(place) == 2
    assert "there is no such folder" in capsys.readouterr().err
    assert state_of(place)["state"] == "failed"
    assert "there is no such folder" in state_of(place)["exception"]["message"]
    assert "the code has changed since the sweep was started: a, now " in caplog.text
