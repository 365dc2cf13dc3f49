"""What the table of docs/reliability.md is made by: everything is counted, and what is missing is said."""

import random
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import robustness
from breaking import Placed
from killing import FILES, Shot, Way
from robustness import ITEMS, OTHERS, Count, Settings, Tries, count, into, others, text


def bad_and_good(place: Path, settings: Settings) -> Tries:
    """Have one try of two end well."""
    assert place.is_dir()
    yield "a", None
    yield "b", "was wrong"


def test_tries_are_counted_and_what_was_wrong_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    found = count("name", "what was tried", bad_and_good, Settings())
    assert (found.tried, found.wrong) == (2, ["b: was wrong"])
    assert capsys.readouterr().err == "name: b: was wrong\n"
    assert found.row() == "| what was tried | 2 | 1 |"


def test_the_table_says_what_was_wrong_and_what_is_missing() -> None:
    table = text([Count("x", 3, ["b: was wrong"]), Count("y", 2)], ["no models"], ["--kills", "9"])
    assert "`python benchmarks/robustness.py --kills 9`" in table
    assert "| x | 3 | 2 |\n| y | 2 | 2 |" in table
    assert "- did not end well: b: was wrong\n- not tried: no models\n" in table


def test_kills_are_counted_by_stage_and_order() -> None:
    found = Count("kills")
    for order, wrong in (("block", None), ("arrival", None), ("arrival", "other masks")):
        found.add(Placed("a kill", row="prune", column=order), wrong)
    found.add(Placed("a kill", row="load", column="block"), None)
    table = text([found], [], [])
    assert (
        "| tried, by what the run did | arrival | block |\n|---|---|---|\n| load | 0 | 1 |\n| prune | 1 of 2 | 1 |\n"
        in table
    )
    assert "| kills | 4 | 3 |" in table


def test_shots_reach_every_stage_and_every_kind_of_file(tmp_path: Path) -> None:
    stages, files = {"load": 0.1, "export": 0.2}, Counter(artifact=2, checkpoint=3, export=1, other=9)
    shots = list(islice(Way("block", "x", (), tmp_path, 3.0, stages, files).shots(random.Random(0)), 240))
    assert {shot.stage for shot in shots} == {None, *stages}
    assert {shot.file for shot in shots} == {None, "", *FILES}
    assert all(shot.number < files[shot.file] for shot in shots if shot.file)
    assert len({(shot.file, shot.number, shot.after) for shot in shots if shot.file}) == 12
    assert str(Shot(0.5, "load")) == "0.50 s into load"


def test_the_table_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "reliability.md"
    path.write_text(f"before\n{robustness.BEGIN}\nold\n{robustness.END}\nafter\n")
    for _ in range(2):
        into(path, f"{robustness.BEGIN}\nnew\n{robustness.END}")
        assert path.read_text() == f"before\n{robustness.BEGIN}\nnew\n{robustness.END}\nafter\n"


def test_a_table_of_damages_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OTHERS, "texts", ("no_such_module", "TEXTS", "try_text", "damaged texts", None))
    assert dict(others())["texts"] == "damaged texts: No module named 'no_such_module'"


@pytest.mark.parametrize("name", ["caches"])
def test_a_damaged_cache_is_never_believed(name: str, tmp_path: Path) -> None:
    assert [each for each in ITEMS[name][1](tmp_path, Settings()) if each[1] is not None] == []


def test_a_killed_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    assert [wrong for _, wrong in ITEMS["kills"][1](tmp_path, Settings(kills=1))] == [None]


def test_configurations_that_are_drawn_are_refused_or_run(tmp_path: Path) -> None:
    found = list(ITEMS["configurations"][1](tmp_path, Settings(configurations=15, seed=7)))
    assert len(found) == 15
    assert [each for each in found if each[1] is not None] == []
