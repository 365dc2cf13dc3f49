"""A run that is done again is compared number by number."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_job
import yaml
from tiny_models import save_tiny_model

from mwanda import reproduce
from mwanda.reproduce import compare, differing_environment


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("reproduce")
    tiny_job.run(save_tiny_model("llama", folder / "model"), folder / "run")
    return folder / "run"


def altered(run: Path, folder: Path, section: str, *path: Any, value: Any) -> Path:
    """Copy a run, with another value in its results."""
    folder.mkdir()
    for name in ("config.yaml", "overrides.yaml"):
        (folder / name).write_text((run / name).read_text())
    results = json.loads((run / "results.json").read_text())
    node = results[section]
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value(node[path[-1]])
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_a_run_gives_the_same_numbers_again(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce.main([str(run), "--output", str(tmp_path / "again"), "--tolerance", "0"]) == 0
    assert "matches; masks are the same" in capsys.readouterr().out
    report = json.loads((tmp_path / "again" / reproduce.REPORT).read_text())
    assert (report["matches"], report["unequal"]) == (True, [])
    assert report["compared"] > 100


def test_a_run_of_a_set_that_is_gone_since_is_done_again(run: Path, tmp_path: Path) -> None:
    old = shutil.copytree(run, tmp_path / "old")
    overrides = yaml.safe_load((old / "overrides.yaml").read_text())
    (old / "overrides.yaml").write_text(yaml.safe_dump([*overrides, "langs=mwanda15"]))
    assert reproduce.main([str(old), "--output", str(tmp_path / "again"), "--tolerance", "0"]) == 0


def test_a_number_that_differs_is_named_and_the_exit_code_is_1(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("pruned", "swh_Latn", "perplexity")
    first = altered(run, tmp_path / "first", "perplexity", *place, value=lambda number: number * 1.01)
    assert reproduce.main([str(first), "--output", str(tmp_path / "again")]) == 1
    printed = capsys.readouterr().out
    assert "different: perplexity.pruned.swh_Latn.perplexity: " in printed
    assert "(-9.9e-03)" in printed
    assert "does not match; masks are the same" in printed


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (1.0, 1.0, "equal"),
        (1.0, 1.0 + 1e-9, "close"),
        (1.0, 1.0 + 1e-3, "different"),
        (100, 101, "different"),
        (10**9, 10**9 + 1, "different"),  # a count has no tolerance
        (1, 1.0, "different"),
        (None, None, "equal"),
        (None, 2.0, "different"),
        ("a", "b", "different"),
    ],
)
def test_what_matches(before: object, after: object, verdict: str) -> None:
    (found,) = compare({"model": {"a": before}}, {"model": {"a": after}}, 1e-6)
    assert (found.place, found.verdict) == ("model.a", verdict)


def test_entries_of_lists_go_by_their_names() -> None:
    before = {"sparsity": {"per_matrix": [{"name": "a", "mask": "1"}, {"name": "b", "mask": "2"}]}}
    after = {"sparsity": {"per_matrix": [{"name": "b", "mask": "2"}, {"name": "a", "mask": "3"}]}}
    different = [each.place for each in compare(before, after) if each.verdict != "equal"]
    assert different == ["sparsity.per_matrix.a.mask"]


def test_a_number_that_only_one_run_has_is_a_difference() -> None:
    before = {"tasks": {"x": 1.0}, "timing": {"total": 1.0}}
    assert [(each.place, each.verdict) for each in compare(before, {"tasks": {}})] == [("tasks.x", "different")]
    assert [(each.place, each.verdict) for each in compare({"tasks": {}}, before)] == [("tasks.x", "different")]


def test_what_is_not_as_it_was_is_said_line_by_line() -> None:
    before = {"environment": {"torch": "2.12", "device": "cpu", "packages": {"numpy": "2.3"}}}
    after = {"environment": {"torch": "2.13", "device": "cpu", "packages": {"numpy": "2.4"}}}
    assert differing_environment(before, after) == ["packages.numpy: 2.3 → 2.4", "torch: 2.12 → 2.13"]
    assert differing_environment(before, before) == []


@pytest.mark.parametrize("content", [None, "{", '{"status": "failed"}'])
def test_what_is_no_finished_run_is_refused(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    assert reproduce.main([str(tmp_path)]) == 2
    assert "holds no config.yaml with the results.json of a complete run" in capsys.readouterr().err


def test_a_folder_in_use_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce.main([str(run), "--output", str(run)]) == 2
    assert "is not empty" in capsys.readouterr().err


# ---- a stranger's run


def with_configuration(run: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Copy a run, with another configuration."""
    folder.mkdir()
    config = yaml.safe_load((run / "config.yaml").read_text())
    change(config)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for name in ("overrides.yaml", "results.json"):
        (folder / name).write_text((run / name).read_text())
    return folder


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the file that a module leaves when it is imported."""
    left = tmp_path / "imported"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "strange", raising=False)
    (tmp_path / "strange.py").write_text(
        f"import pathlib\nfrom mwanda.criteria.wanda import Wanda\npathlib.Path({str(left)!r}).touch()\n"
        "class Strange(Wanda):\n    pass\n"
    )
    return left


def test_code_that_a_folder_names_is_run_by_the_users_word_alone(
    run: Path, stranger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def name_a_class(config: dict[str, Any]) -> None:
        config["criterion"] = {"_target_": "strange.Strange"}
        config["plugins"] = ["strange"]

    folder = with_configuration(run, tmp_path / "strange-run", name_a_class)
    again = tmp_path / "again"
    assert reproduce.main([str(folder), "--output", str(again)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: _target_=strange.Strange: the run used a class of another package; if you trust it")
    assert error.count("\n") == 1
    assert "--plugins strange" in error
    assert not stranger.exists()
    assert not again.exists()
    assert reproduce.main([str(folder), "--output", str(again), "--plugins", "strange"]) in (0, 1)
    assert stranger.exists()


@pytest.mark.parametrize("value", [True, "true", 1, "yes"])
def test_code_of_a_model_is_run_by_the_users_word_alone(
    value: object, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = with_configuration(run, tmp_path / "a", lambda config: config["model"].update(trust_remote_code=value))
    assert reproduce.main([str(folder), "--output", str(tmp_path / "again")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: model.trust_remote_code=true: the run executed code that comes with ")
    assert "--trust-remote-code" in error
    assert not (tmp_path / "again").exists()


def test_by_the_users_word_it_goes_on(run: Path, tmp_path: Path) -> None:
    folder = with_configuration(run, tmp_path / "a", lambda config: config["model"].update(trust_remote_code=True))
    assert reproduce.main([str(folder), "--output", str(tmp_path / "again"), "--trust-remote-code"]) == 0


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no configuration": lambda folder: (folder / "config.yaml").write_text(""),
    "a list": lambda folder: (folder / "config.yaml").write_text("[1]"),
    "no YAML": lambda folder: (folder / "config.yaml").write_text("a: [b"),
    "a tag": lambda folder: (folder / "config.yaml").write_text("a: !!python/object/apply:os.system [ls]"),
    "bytes": lambda folder: (folder / "config.yaml").write_bytes(b"\xff\xfe\x00"),
    "no keys": lambda folder: (folder / "config.yaml").write_text("a: 1"),
    "no overrides": lambda folder: (folder / "overrides.yaml").unlink(),
    "other overrides": lambda folder: (folder / "overrides.yaml").write_text("a: 1"),
    "no sections": lambda folder: (folder / "results.json").write_text('{"status": "complete"}'),
    "a list of results": lambda folder: (folder / "results.json").write_text("[]"),
    "half": lambda folder: (folder / "results.json").write_text((folder / "results.json").read_text()[:500]),
    "results in bytes": lambda folder: (folder / "results.json").write_bytes(b"\xff\xfe"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_one_line(
    damage: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = with_configuration(run, tmp_path / "a", lambda config: None)
    DAMAGES[damage](folder)
    assert reproduce.main([str(folder), "--output", str(tmp_path / "again")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "again").exists()
