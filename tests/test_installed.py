"""What pip installs needs no checkout: configuration and experiments travel with the package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_job
from tiny_models import save_tiny_model


ROOT = Path(__file__).parent.parent
SOURCES = ("mwanda", "conf", "experiments", "pyproject.toml", "setup.py", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as `pip install` leaves it, without a network; it lies in somebody else's checkout."""
    folder = tmp_path_factory.mktemp("checkout")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    sources = folder / "sources"
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, sources / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, sources / name)
    options = ("--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check")
    pip = [sys.executable, "-m", "pip", "install", *options]
    subprocess.run([*pip, "--target=site", "./sources"], cwd=folder, check=True)
    shutil.rmtree(sources)
    return folder / "site"


def run(installed: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    changes = {"PYTHONPATH": str(installed), "PATH": f"{installed / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(command, cwd=folder, env=os.environ | changes, capture_output=True, text=True, check=False)


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of every YAML below a folder, by path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.yaml")}


def test_configuration_and_experiments_are_those_of_the_checkout(installed: Path) -> None:
    experiments = {f"experiment/{name}": content for name, content in files(ROOT / "experiments").items()}
    assert files(installed / "mwanda" / "conf") == files(ROOT / "conf") | experiments


def test_all_that_the_package_reads_is_there(installed: Path) -> None:
    shipped = {path.relative_to(installed).as_posix() for path in (installed / "mwanda").rglob("*")}
    needed = [path for path in (ROOT / "mwanda").rglob("*") if "__pycache__" not in path.parts]
    assert [path for path in needed if path.relative_to(ROOT).as_posix() not in shipped] == []


def test_an_experiment_runs_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    model, work = save_tiny_model("bloom", tmp_path / "tiny"), tmp_path / "work"
    work.mkdir()
    done = run(installed, work, "mwanda-run", "+experiment=smoke", *tiny_job.overrides(model))
    assert done.returncode == 0, done.stderr
    (path,) = work.rglob("results.json")
    results = json.loads(path.read_text())
    assert results["status"] == "complete"
    found = {key: value for key, value in results["environment"].items() if key.startswith("git_")}
    assert found == {"git_commit": None, "git_dirty": None, "git_difference": None}


def test_the_help_names_the_installed_program(installed: Path, tmp_path: Path) -> None:
    shown = run(installed, tmp_path, "mwanda-run", "--help")
    assert "mwanda-run model=bloom" in shown.stdout
    assert "experiment: ablation_mwanda, " in shown.stdout
    assert "run.py" not in shown.stdout
    assert list(tmp_path.iterdir()) == []
