"""results.json becomes single values with predictable names, and tables."""

import math
from typing import Any

import pytest

from mwanda.tracking.summary import (
    LANGUAGE_COLUMNS,
    LAYER_COLUMNS,
    language_rows,
    layer_rows,
    single_values,
)


def measured(perplexity: float, bits_per_byte: float) -> dict[str, Any]:
    return {
        "perplexity": perplexity,
        "bits_per_byte": bits_per_byte,
        "tokens": 100,
        "bytes": 400,
        "low": perplexity - 1,
        "high": perplexity + 1,
    }


@pytest.fixture
def results() -> dict[str, Any]:
    return {
        "schema": 1,
        "status": "complete",
        "environment": {"torch": "2.13", "git_dirty": False, "git_commit": None},
        "model": {"id": "tiny", "parameters": 1000},
        "sparsity": {
            "target": 0.5,
            "achieved": 0.49,
            "per_layer": [
                {"layer": 0, "target": 0.4, "achieved": 0.41},
                {"layer": 1, "target": 0.6, "achieved": 0.57},
            ],
            "per_matrix": [{"name": "0.up", "shape": [2, 2], "zeros": 2, "zeros_before": 0}],
        },
        "calibration": {"tokens_per_language": {"swh_Latn": 64}},
        "perplexity": {
            "dense": {"swh_Latn": measured(10.0, 1.0), "aaa_Latn": measured(8.0, 0.9)},
            "pruned": {"swh_Latn": measured(15.0, 1.2)},
            "paired": {"swh_Latn": {"log_ratio": math.log(1.5), "low": 0.0, "high": math.log(2), "p_holm": 0.01}},
            "aggregate": {"geometric_mean": 15.0, "by_family": {"Atlantic-Congo": 15.0}, "paired": {"ratio": 1.5}},
        },
        "tasks": {"pruned": {"xnli_sw": {"acc": 0.4, "stderr": 0.01}}},
        "timing": {"load": 1.5},
        "evaluation": {"dense": {"tokens_per_second": 900.0}},
        "memory": {"peak_rss_bytes": 7, "peak_device_bytes": None},
    }


def test_single_values_have_the_names_people_compare_runs_by(results: dict[str, Any]) -> None:
    assert single_values(results) == {
        "status": "complete",
        "environment/torch": "2.13",
        "environment/git_dirty": False,
        "model/id": "tiny",
        "model/parameters": 1000,
        "sparsity/target": 0.5,
        "sparsity/achieved": 0.49,
        "calibration/tokens_per_language/swh_Latn": 64,
        "perplexity/dense/swh_Latn": 10.0,
        "perplexity/dense/aaa_Latn": 8.0,
        "perplexity/pruned/swh_Latn": 15.0,
        "bits_per_byte/dense/swh_Latn": 1.0,
        "bits_per_byte/dense/aaa_Latn": 0.9,
        "bits_per_byte/pruned/swh_Latn": 1.2,
        "ratio/swh_Latn": 1.5,
        "aggregate/geometric_mean": 15.0,
        "aggregate/by_family/Atlantic-Congo": 15.0,
        "aggregate/paired/ratio": 1.5,
        "log_ratio/swh_Latn": math.log(1.5),
        "p_holm/swh_Latn": 0.01,
        "evaluation/dense/tokens_per_second": 900.0,
        "tasks/pruned/xnli_sw/acc": 0.4,
        "tasks/pruned/xnli_sw/stderr": 0.01,
        "seconds/load": 1.5,
        "memory/peak_rss_bytes": 7,
    }


def test_there_is_a_row_for_every_language(results: dict[str, Any]) -> None:
    rows = [dict(zip(LANGUAGE_COLUMNS, row, strict=True)) for row in language_rows(results)]
    assert rows[0] == {
        "language": "swh_Latn",
        "name": "Swahili",
        "dense perplexity": 10.0,
        "pruned perplexity": 15.0,
        "ratio": 1.5,
        "ratio low": 1.0,
        "ratio high": pytest.approx(2.0),
        "p (Holm)": 0.01,
        "dense bits per byte": 1.0,
        "pruned bits per byte": 1.2,
        "tokens": 100,
        "bytes": 400,
    }


def test_a_language_without_a_name_or_a_second_measurement_leaves_gaps(results: dict[str, Any]) -> None:
    row = dict(zip(LANGUAGE_COLUMNS, language_rows(results)[1], strict=True))
    assert row["language"] == "aaa_Latn"
    assert (row["name"], row["pruned perplexity"], row["ratio"]) == (None, None, None)
    assert (row["ratio low"], row["p (Holm)"]) == (None, None)
    assert (row["dense perplexity"], row["tokens"]) == (8.0, 100)


def test_there_is_a_row_for_every_layer(results: dict[str, Any]) -> None:
    assert LAYER_COLUMNS == ("layer", "target", "achieved")
    assert layer_rows(results) == [[0, 0.4, 0.41], [1, 0.6, 0.57]]


@pytest.mark.parametrize("value", ["absent", None, {}])
@pytest.mark.parametrize("section", ["perplexity", "sparsity", "tasks", "timing", "memory", "environment", "model"])
def test_any_section_may_be_missing_or_empty(results: dict[str, Any], section: str, value: Any) -> None:
    name = {"timing": "seconds"}.get(section, section)
    everything = single_values(results)
    results.pop(section)
    if value != "absent":
        results[section] = value
    left = single_values(results)
    assert not [key for key in left if key.startswith(f"{name}/")]
    assert left.items() < everything.items()
    assert bool(language_rows(results)) == (section != "perplexity")
    assert bool(layer_rows(results)) == (section != "sparsity")
