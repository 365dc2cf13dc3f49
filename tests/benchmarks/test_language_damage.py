"""Damage is that of the run's own record, and a reduction is one of paired sentences."""

from dataclasses import replace
from math import log
from pathlib import Path

import language_damage as damage
import numpy as np
import pytest
import tiny_job
from tiny_models import save_tiny_model


def run(added: float, seed: int = 0, method: str = "a/b/c") -> damage.Run:
    generator = np.random.default_rng(1)
    noise = generator.normal(0, 0.3, size=(3, 8))
    tokens = generator.integers(10, 40, size=(3, 8)).astype(np.float64)
    return damage.Run(
        method,
        "0.5",
        0.5,
        ("deu_Latn", "eng_Latn", "fra_Latn"),
        seed,
        np.array([True, True, False]),
        (added + added * noise) * tokens,
        tokens,
        10.0,
    )


def test_half_the_damage_in_every_sentence_is_half_without_doubt() -> None:
    point, interval = damage.reductions([run(0.5)], [run(1.0)], draws=200)
    assert point == pytest.approx([0.5] * 3)
    assert interval == pytest.approx(np.full((2, 3), 0.5))


def test_parts_are_means_over_languages_and_the_worst() -> None:
    one = replace(run(1.0), added=np.array([[10.0], [20.0], [60.0]]), tokens=np.full((3, 1), 10.0))
    assert damage.damage([one], np.array([[0]])).tolist() == [[1.5, 6.0, 6.0]]


def test_only_seeds_that_both_have_are_compared() -> None:
    ours, theirs = damage.paired([run(1, 0), run(1, 2)], [run(2, 1), run(2, 2)])
    assert [each.seed for each in (*ours, *theirs)] == [2, 2]


def test_a_method_without_a_partner_has_no_difference() -> None:
    lines = damage.table([run(1.0, 0, "x/y/z"), run(1.0, 1)], "a/b/c", draws=10)
    assert any(line.startswith("| x/y/z | 1 |") and line.endswith("| – | – | – | – |") for line in lines)


def test_it_reads_what_runs_leave(tmp_path: Path) -> None:
    model = save_tiny_model("llama", tmp_path / "model")
    kept = ("calibration.languages=[eng_Latn]", "criterion=wanda")
    record = tiny_job.run(model, tmp_path / "wanda", *kept)
    tiny_job.run(model, tmp_path / "magnitude", *kept, "criterion=magnitude")
    found = damage.Run.read(tmp_path / "wanda")
    assert found is not None
    pruned, dense = (record["perplexity"][model]["swh_Latn"]["perplexity"] for model in ("pruned", "dense"))
    assert damage.damage([found], np.arange(2)[None])[0, 1] == pytest.approx(log(pruned / dense), rel=1e-6)
    lines = damage.table([found], found.method, draws=10)
    assert "| wanda/threshold/uniform | 1 |" in lines[-1]
    assert "0 % (0–0)" in lines[-1]
