"""Commands that are printed suit a checkout as well as an installed package."""

from pathlib import Path

import pytest

from mwanda.sweep import naming
from mwanda.system import conf
from mwanda.system.environment import code


def test_a_command_of_a_checkout_starts_its_run_py(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(conf, "CHECKOUT", tmp_path / "a checkout")
    assert naming.command_line(["--multirun", "seed=0,1"]) == "python 'a checkout/run.py' --multirun seed=0,1"


def test_a_command_of_an_installed_package_is_its_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conf, "CHECKOUT", None)
    assert naming.command_line(["--multirun", "seed=0,1"]) == "mwanda-run --multirun seed=0,1"
    assert naming.command_line(["-m", "mwanda.sbatch", "seed=0,1"]) == "python -m mwanda.sbatch seed=0,1"


def test_an_installed_package_has_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conf, "CHECKOUT", None)
    assert code() == {"commit": None, "dirty": None, "difference": None}
