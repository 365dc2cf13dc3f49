"""The job array of a sweep: its script, and what is refused before anything is submitted."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import tiny_job
from tiny_models import save_tiny_model

from mwanda import sbatch
from mwanda.errors import ConfigurationError, InputError
from mwanda.sweep.array import Resources, script
from mwanda.sweep.plan import Job


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that PATH begins with."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)


def jobs(folder: Path, *names: str) -> list[Job]:
    return [Job(folder / name, (), name, "run") for name in names]


@pytest.mark.parametrize(
    ("code", "restarts", "scheduled"),
    [
        (0, 0, []),
        (1, 0, []),
        (75, 0, ["requeue 7_1"]),
        (140, 1, ["requeue 7_1"]),
        (75, 2, []),  # as often as it may
        (137, 0, []),
    ],
)
def test_an_element_runs_its_job_and_goes_back_to_the_queue_when_its_time_was_over(
    code: int, restarts: int, scheduled: list[str], tmp_path: Path, programs: Path
) -> None:
    """Bash runs the script; what is recorded is what SLURM would see."""
    folder = tmp_path / "a 'sweep' %A $HOME"
    text = script(jobs(folder, "first", "second=1"), folder, ["seed=1,2"], Resources(requeues=2))
    path = tmp_path / "array.sh"
    path.write_text(text)
    program(programs, "srun", f'printf "%s\\n" "$@" >{tmp_path}/srun; exit {code}')
    program(programs, "scontrol", f'echo "$@" >>{tmp_path}/scontrol')
    program(programs, "sleep", f'echo "$@" >>{tmp_path}/sleep')
    numbers = {"ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "1", "JOB_ID": "7", "RESTART_COUNT": str(restarts)}
    environment = os.environ | {f"SLURM_{key}": value for key, value in numbers.items()}
    done = subprocess.run(["bash", str(path)], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, "")
    ran = (tmp_path / "srun").read_text().splitlines()
    assert ran[-3:] == ["-m", "mwanda.sweep", str(folder / "second=1")]
    assert f"--output={str(folder).replace('%', '%%')}/second=1/job.log" in ran
    assert (folder / "second=1").is_dir()
    asked = (tmp_path / "scontrol").read_text().splitlines() if scheduled else []
    assert asked == scheduled
    assert (tmp_path / "scontrol").exists() == bool(scheduled)
    assert (tmp_path / "sleep").exists() == bool(scheduled)


def test_a_job_that_was_told_to_end_leaves_the_end_to_slurm(tmp_path: Path, programs: Path) -> None:
    path = tmp_path / "array.sh"
    path.write_text(script(jobs(tmp_path, "one"), tmp_path, [], Resources()))
    program(programs, "srun", "exit 143")
    program(programs, "sleep", f'echo "$@" >>{tmp_path}/sleep')
    done = subprocess.run(["bash", str(path)], env=os.environ | {"SLURM_ARRAY_TASK_ID": "0"}, check=False)
    assert done.returncode == 143
    assert (tmp_path / "sleep").read_text() == "600\n"


def test_resources_are_options_of_sbatch(tmp_path: Path) -> None:
    resources = Resources(
        "1-0", "64G", 8, 2, parallel=3, warning=30, partition="gpu", account="us", options=("--qos=low",),
        setup=("module load cuda",),
    )  # fmt: skip
    lines = script(jobs(tmp_path, *"abcdef"), tmp_path / "swept", [], resources).splitlines()
    options = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")}
    assert options == {
        "--job-name=swept", "--array=0-5%3", f"--output={tmp_path}/swept/slurm/%A_%a.log", "--open-mode=append",
        "--requeue", "--signal=USR2@30", "--nodes=1", "--ntasks=1", "--cpus-per-task=8", "--gpus-per-node=2",
        "--mem=64G", "--time=1-0", "--partition=gpu", "--account=us", "--qos=low",
    }  # fmt: skip
    assert lines.index("module load cuda") < next(n for n, line in enumerate(lines) if line.startswith("srun"))


def test_line_breaks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line break"):
        script(jobs(tmp_path, "a"), tmp_path / "x\ny", [], Resources())


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"time": "soon"}, r"--time=soon: is none of MINUTES"),
        ({"memory": "much"}, r"--mem=much"),
        ({"processors": 0}, r"--cpus=0: must be at least 1"),
        ({"devices": -1}, r"--gpus=-1"),
        ({"parallel": 0}, r"--parallel=0"),
        ({"options": ("qos=low",)}, r"--option=qos=low: is no option"),
    ],
)
def test_what_sbatch_would_not_take_is_refused(resources: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Resources(**resources)  # type: ignore[arg-type]


def test_a_sweep_is_planned_written_and_submitted(
    model: Path, tmp_path: Path, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(programs, "sbatch", f'echo "$@" >{tmp_path}/submitted; echo "42;cluster"')
    typed = [
        *tiny_job.overrides(model),
        "sparsity=0.3,0.5",
        "--output",
        str(tmp_path / "it's" / "swept"),
        "--gpus",
        "1",
    ]
    assert sbatch.main(typed) == 0
    printed = capsys.readouterr().out
    folder = tmp_path / "it's" / "swept"
    assert "2 jobs, 0 left out" in printed
    assert "SLURM job 42; scancel 42 ends it" in printed
    assert "python -m mwanda.status " in printed
    assert (tmp_path / "submitted").read_text() == f"--parsable {folder}/array.sh\n"
    assert "#SBATCH --array=0-1%2" in (folder / "array.sh").read_text()
    plan = json.loads((folder / "sweep.json").read_text())
    assert plan["commands"] == [["-m", "mwanda.sbatch", *typed]]
    assert {job["folder"].partition("-")[0] for job in plan["jobs"]} == {"sparsity_0.3", "sparsity_0.5"}
    assert {path.name for path in folder.iterdir()} == {"array.sh", "sweep.json", "slurm"}


def test_what_is_complete_is_left_out(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mwanda.sweep.worker import run_job

    typed = [*tiny_job.without_evaluation(model), "sparsity=0.3,0.5", f"--output={tmp_path / 'swept'}", "--dry-run"]
    assert sbatch.main(typed) == 0
    plan = json.loads((tmp_path / "swept" / "sweep.json").read_text())
    assert run_job(tmp_path / "swept" / plan["jobs"][0]["folder"]) == 0
    assert sbatch.main(typed) == 0
    text = (tmp_path / "swept" / "array.sh").read_text()
    assert "#SBATCH --array=0-0%1" in text
    assert plan["jobs"][0]["folder"] not in text
    assert "1 jobs, 1 left out as done or running" in capsys.readouterr().out


def test_an_experiment_is_an_array(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sbatch.main(["+experiment=schedules", f"--output={tmp_path / 'swept'}", "--dry-run"]) == 0
    plan = json.loads((tmp_path / "swept" / "sweep.json").read_text())
    assert f"{len(plan['jobs'])} jobs" in capsys.readouterr().out
    assert len(plan["jobs"]) > 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sparsity=1.5"], "sparsity=1.5"),
        (["sparsty=0.5,0.6"], "there is no key 'sparsty'"),
        (["criterion=wonda,mwanda"], "choices: wanda"),
        (["mode=prepare"], "run.py mode=prepare … prepares them"),
        (["--time=later"], "--time=later"),
        (["seed=1", "hydra/launcher=slurm"], "the array is the launcher"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sbatch.main([*arguments, f"--output={tmp_path / 'swept'}", "--dry-run"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "swept").exists()


def test_a_gpu_need_not_be_here(model: Path, tmp_path: Path) -> None:
    typed = [*tiny_job.overrides(model), "model.device=cuda", f"--output={tmp_path / 'swept'}", "--dry-run"]
    assert sbatch.main(typed) == 0


def test_without_sbatch_it_says_what_to_do(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert sbatch.main([*tiny_job.overrides(model), f"--output={tmp_path / 'swept'}"]) == 2
    assert "there is no sbatch here; --dry-run writes the script alone" in capsys.readouterr().err
    assert not (tmp_path / "swept").exists()


def test_a_refusal_of_the_cluster_is_an_error(
    model: Path, tmp_path: Path, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(programs, "sbatch", 'echo "sbatch: error: invalid partition specified: $1" >&2; exit 1')
    assert sbatch.main([*tiny_job.overrides(model), f"--output={tmp_path / 'swept'}"]) == 1
    assert "array.sh: invalid partition specified: --parsable" in capsys.readouterr().err


def test_an_array_that_is_too_large_is_refused(
    tmp_path: Path, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(programs, "scontrol", "echo 'MaxArraySize = 3'")
    assert sbatch.main(["seed=range(0,4)", f"--output={tmp_path / 'swept'}", "--dry-run"]) == 2
    assert "4 jobs are more than an array of this cluster holds (MaxArraySize=3)" in capsys.readouterr().err
