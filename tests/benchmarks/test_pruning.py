"""Every section runs at toy size; nothing is asserted about time."""

import json
from argparse import Namespace
from pathlib import Path

import pruning
import pytest
from measure import Memory, Row, Table, interleaved, memory_of, timed, write
from scoring import OneMatrix


@pytest.fixture
def options() -> Namespace:
    return Namespace(
        ways=["1", "8", "block", "arrival", "checkpoint", "oneshot"],
        tokens=64,
        length=8,
        rounds=1,
        threads=1,
        models=["qwen2"],
        families=["bloom"],
        memory=False,
        shapes={"toy": [(70, 40)]},
    )


@pytest.mark.parametrize("section", pruning.SECTIONS)
def test_a_section_gives_tables(section: str, options: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "LANGUAGES", (1, 3))
    monkeypatch.setattr(pruning, "GROWTH", (1, 2))
    for table in pruning.SECTIONS[section](options):
        assert len(table.rows) >= 1
        for row in table.rows:
            assert len(row.seconds) == len(row.base) == options.rounds


def test_one_matrix_loses_the_same_weights_on_both_sides() -> None:
    OneMatrix(130, 48).check()


def test_each_way_is_timed_once_a_round_after_a_warm_up() -> None:
    calls: list[str] = []

    def way(name: str) -> float:
        calls.append(name)
        return 1.0

    seconds = interleaved({"a": lambda: way("a"), "b": lambda: way("b")}, 3, lambda: calls.append("-"))
    assert seconds == {"a": [1.0] * 3, "b": [1.0] * 3}
    assert calls == ["b", "-", "a", "-", *("a", "-", "b", "-", "b", "-", "a", "-", "a", "-", "b", "-")]


def test_peak_memory_is_above_what_was_held_before() -> None:
    memory = memory_of(lambda: len(b"x" * 400_000_000))  # written, not only asked for
    assert memory.peak > memory.before


def test_tables_are_written_for_people_and_programs(tmp_path: Path) -> None:
    table = Table("toy", "base", rows=[Row("ours", [1.0, 4.0, 3.0], [1.0, 2.0, 2.0], Memory(2**20, 3 * 2**20))])
    write(tmp_path, "toy", {"threads": 2, "load_average_before": 0.1}, [table])
    assert "| ours | 3.0000 (1.0000 – 4.0000) | 1.50 (1.00 – 2.00) | 3 | 1 |" in (tmp_path / "toy.md").read_text()
    content = json.loads((tmp_path / "toy.json").read_text())
    assert content["tables"][0]["rows"][0]["ratios"] == [1.0, 2.0, 1.5]


def test_times_are_of_the_whole_call() -> None:
    assert timed(lambda: sum(range(1000)))() > 0
