"""A configuration against its baseline, sentence by sentence, and what is said of it."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic_results import METHODS, SPOKEN, results, save, save_sweep

from mwanda.comparison.configurations import Configuration, configurations, told_apart
from mwanda.comparison.finding import Candidate, findings
from mwanda.comparison.pairs import paired
from mwanda.comparison.records import find_runs
from mwanda.comparison.tables import BASELINE, partners
from mwanda.errors import ComparisonError
from mwanda.evaluation.sentence_losses import FILE


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Configuration]:
    folder = tmp_path_factory.mktemp("sweep")
    save_sweep(folder, sparsities=(0.5,))
    return {each.label: each for each in configurations(find_runs([folder])[0])}


def test_the_difference_is_the_one_that_was_put_in(every: dict[str, Configuration]) -> None:
    pair = paired(every["mwanda, cwl"], every["wanda, uniform"], SPOKEN)
    expected = sum((1 + place / 10) * METHODS["mwanda", "cwl"] for place in range(6)) / 6
    assert math.log(pair.ratio) == pytest.approx(expected, abs=0.01)
    assert pair.low < pair.ratio < pair.high < 1
    assert pair.seeds == ("0", "1")
    assert (pair.better, pair.worse, pair.distinguishable) == (6, 0, True)
    assert all(each.units == 20 for each in pair.pairs.values())


def test_seeds_are_averaged_and_not_counted_as_more_sentences(every: dict[str, Configuration]) -> None:
    one, other = every["magnitude, uniform"], every["wanda, uniform"]
    alone = paired(replace(one, runs=one.runs[:1]), other, SPOKEN)
    both = paired(one, other, SPOKEN)
    assert alone.seeds == ("0",)
    assert alone.pairs["eng_Latn"].units == both.pairs["eng_Latn"].units == 20
    assert alone.ratio != both.ratio


def test_what_cannot_be_paired_says_why(every: dict[str, Configuration], tmp_path: Path) -> None:
    baseline = every["wanda, uniform"]
    (run,), _ = find_runs([save(tmp_path / "run", results(seed=7))])
    other = Configuration({}, (run,))
    with pytest.raises(ComparisonError, match="no seed in common"):
        paired(other, baseline, SPOKEN)
    (same,), _ = find_runs([save(tmp_path / "same", results(seed=0))])
    with pytest.raises(ComparisonError, match=rf"has no {FILE}"):
        paired(Configuration({}, (same,)), baseline, SPOKEN)
    (tmp_path / "same" / FILE).write_bytes(b"torn")
    with pytest.raises(ComparisonError, match="cannot be read"):
        paired(Configuration({}, (same,)), baseline, SPOKEN)
    with pytest.raises(ComparisonError, match="lacks tam_Taml"):
        paired(every["mwanda, cwl"], baseline, ["tam_Taml"])


def candidates(every: dict[str, Configuration]) -> list[Candidate]:
    members = list(every.values())
    ratios = {label: 2 + METHODS[tuple(label.split(", "))] for label in every}  # type: ignore[index]
    return [
        Candidate(each, ratios[each.label], other, other and paired(each, other, SPOKEN))
        for each, other in zip(members, partners(members, BASELINE), strict=True)
    ]


def test_the_finding_names_the_best_with_its_interval(every: dict[str, Configuration]) -> None:
    (sentence,) = findings(candidates(every), BASELINE, 6)
    assert re.fullmatch(
        r"At 50 % sparsity, mwanda, cwl \(best of 3 against the baseline wanda, uniform\) has 1[12]\.\d % lower "
        r"perplexity, 95 % interval −1\d\.\d % to −1\d\.\d %, over 6 languages, 2 seeds; significantly better in 6 and "
        r"worse in 0 of them \(Holm\)\.",
        sentence,
    )


def test_what_is_within_the_noise_is_not_called_a_difference(every: dict[str, Configuration]) -> None:
    found = candidates(every)
    (best,) = [each for each in found if each.configuration.label == "mwanda, cwl"]
    assert best.paired is not None
    vague = replace(best, paired=replace(best.paired, ratio=0.99, low=0.97, high=1.01))
    (sentence,) = findings([vague], BASELINE, 6)
    assert "is not distinguishable from it: perplexity −1.0 %, 95 % interval −3.0 % to +1.0 %" in sentence
    (without,) = findings([replace(each, baseline=None, paired=None) for each in found], None, 6)
    assert "there is no baseline run, so nothing says whether the difference is more than noise" in without
    (unpaired,) = findings([replace(best, paired=None)], BASELINE, 6)
    assert unpaired.endswith("the two could not be paired by sentences.")


def counted(folder: Path, criterion: str, **calibration: Any) -> None:
    """Save a run whose calibration text counts in a way of its own; without any, as older versions did."""
    config = {"seed": 0, "calibration": {"sequences": 9, **calibration}}
    save(folder, results(criterion), config)


def test_a_method_that_has_its_text_count_otherwise_is_compared_with_the_baseline(tmp_path: Path) -> None:
    """`method=recommended` sets both keys, and the report had no baseline for it."""
    plain = {"unit_tokens": False, "moment_share": 1.0, "weights": "uniform"}
    counted(tmp_path / "old", "wanda")
    counted(tmp_path / "new", "wanda", **plain)
    counted(tmp_path / "alike", "wanda", **{**plain, "unit_tokens": True})
    counted(tmp_path / "peer", "ria", **plain)
    counted(tmp_path / "recommended", "ria", **{**plain, "unit_tokens": True, "moment_share": 0.5})
    counted(tmp_path / "unit", "ria", **{**plain, "unit_tokens": True})
    members = configurations(find_runs([tmp_path])[0])
    pairs = {
        each.label: other and other.label for each, other in zip(members, partners(members, BASELINE), strict=True)
    }
    assert pairs == {
        "wanda": None,
        "wanda, unit_tokens=True": "wanda",
        "ria": "wanda",
        "ria, unit_tokens=True": "wanda, unit_tokens=True",
        "ria, unit_tokens=True, moment_share=0.5": "wanda",
    }
    (merged,) = [each for each in members if each.label == "wanda"]
    assert len(merged.runs) == 2  # of an older version and a newer one


def test_how_text_counts_is_named_only_where_nothing_else_tells_methods_apart(tmp_path: Path) -> None:
    counted(tmp_path / "wanda", "wanda", unit_tokens=False)
    counted(tmp_path / "ria", "ria", unit_tokens=True)
    every = configurations(find_runs([tmp_path])[0])
    assert [each.label for each in told_apart(every)] == ["ria", "wanda"]
    counted(tmp_path / "plain", "ria", unit_tokens=False)
    every = configurations(find_runs([tmp_path])[0])
    assert [each.label for each in told_apart(every)] == ["ria", "ria, unit_tokens=True", "wanda"]
