"""results.json is valid JSON, and there whole or not at all."""

import csv
import io
import json
import math
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mwanda.job.results import read_results
from mwanda.system import conf
from mwanda.system import environment as environment_of_runs
from mwanda.system.environment import code, environment, write_difference
from mwanda.system.files import csv_text, write_json, write_yaml


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    content = {"a": math.nan, "b": [math.inf, 1.5], "c": {"d": (-math.inf, 2)}, 3: True, "e": "Kiswahili ሰላም"}
    write_json(tmp_path / "results.json", content)
    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    expected = {"a": None, "b": [None, 1.5], "c": {"d": [None, 2]}, "3": True, "e": "Kiswahili ሰላም"}
    assert json.loads(text, parse_constant=_refuse) == expected
    assert "ሰላም" in text
    assert text.endswith("}\n")


def test_the_old_file_stays_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.json"
    write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_json(path, {"new": 1})
    assert json.loads(path.read_text()) == {"old": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["results.json"]


def test_writing_replaces_what_was_there_and_makes_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    write_json(folder / "results.json", {"old": 1})
    write_json(folder / "results.json", {"new": 2})
    assert json.loads((folder / "results.json").read_text()) == {"new": 2}
    assert [each.name for each in folder.iterdir()] == ["results.json"]


def test_others_may_read_the_file(tmp_path: Path) -> None:
    write_json(tmp_path / "results.json", {})
    assert (tmp_path / "results.json").stat().st_mode & 0o777 == 0o644


def test_a_folder_without_results_has_none(tmp_path: Path) -> None:
    assert read_results(tmp_path) is None
    assert read_results(tmp_path / "absent") is None


def test_yaml_keeps_the_order_and_every_script(tmp_path: Path) -> None:
    content = {"z": [1, None], "a": {"name": "ሰላም", "on": True}}
    write_yaml(tmp_path / "config.yaml", content)
    text = (tmp_path / "config.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == content
    assert text.startswith("z:")
    assert "ሰላም" in text


def test_the_environment_names_versions_and_hides_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "secret-host")
    found = environment("some device")
    assert set(found) == {
        "mwanda",
        "python",
        "torch",
        "transformers",
        "lm_eval",
        "git_commit",
        "git_dirty",
        "git_difference",
        "device",
        "arithmetic",
        "packages",
        "hostname_hash",
    }
    assert found["device"] == "some device"
    assert found["torch"][0].isdigit()
    assert found["packages"]["torch"] == found["torch"]
    assert found["packages"]["lm-eval"] == found["lm_eval"]
    assert found["arithmetic"].endswith(" threads")
    assert len(found["hostname_hash"]) == 12
    assert "secret-host" not in json.dumps(found)


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = environment("cpu")
    assert found["git_commit"] is None
    assert found["git_dirty"] is None


@pytest.fixture
def checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A checkout that stands for this project's: one file is tracked and changed, one is not tracked."""
    folder = tmp_path / "checkout"
    (folder / "mwanda").mkdir(parents=True)
    (folder / "tracked.txt").write_text("as it was\n")
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.com")
    for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "x")):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    (folder / "private.txt").write_text("a secret\n")
    monkeypatch.setattr(conf, "CHECKOUT", folder)
    return folder


def test_how_tracked_files_differ_is_written_down(checkout: Path, tmp_path: Path) -> None:
    (checkout / "tracked.txt").write_bytes("wie es ist: ሰላም\n".encode() + b"\xff\n")
    write_difference(tmp_path)
    text = (tmp_path / "git.diff").read_text(encoding="utf-8")
    assert "-as it was\n+wie es ist: ሰላም\n" in text
    assert "secret" not in text
    assert environment("cpu")["git_difference"] == code()["difference"] is not None


def test_without_a_difference_there_is_no_file_and_that_of_an_earlier_attempt_goes(
    checkout: Path, tmp_path: Path
) -> None:
    (tmp_path / "git.diff").write_text("old")
    write_difference(tmp_path)
    assert not (tmp_path / "git.diff").exists()


def test_a_long_difference_is_cut(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_of_runs, "LONGEST_DIFFERENCE", 200)
    (checkout / "tracked.txt").write_text("ሰላም\n" * 1000)
    write_difference(tmp_path)
    text = (tmp_path / "git.diff").read_text(encoding="utf-8")
    assert len(text.encode()) < 250
    assert re.search(r"\n… cut: \d+ bytes in all\n$", text)


def _refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is not JSON")


def test_csv_reads_back() -> None:
    rows = [{"a": 'x, "y"', "b": 1.25, "c": None}, {"a": "z", "b": math.inf, "c": math.nan}]
    found = list(csv.DictReader(io.StringIO(csv_text(rows, ("a", "b", "c")))))
    assert found == [{"a": 'x, "y"', "b": "1.25", "c": ""}, {"a": "z", "b": "inf", "c": ""}]
