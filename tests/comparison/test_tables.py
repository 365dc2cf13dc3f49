"""Runs become configurations and tables: what varies, seeds, baselines, protocols, languages."""

import math
from dataclasses import replace
from typing import Any

import pytest
from synthetic_results import results

from mwanda.comparison import render, tables
from mwanda.comparison.configurations import configurations, repeated
from mwanda.comparison.records import Run, Settings
from mwanda.comparison.tables import Section
from mwanda.comparison.tidy import BLOCK, TIDY, blocks, of_first_seed, task_scores, tidy
from mwanda.errors import ConfigurationError


def run(name: str = "run", config: dict[str, Any] | None = None, **given: Any) -> Run:
    return Run(name, results(**given), {"seed": given.get("seed", 0), **(config or {})})


def ratios(first: float, second: float, third: float) -> dict[str, float]:
    return {"eng_Latn": first, "deu_Latn": second, "swh_Latn": third}


def sections(runs: list[Run], baseline: Settings | None, grouping: str | None = None) -> list[Section]:
    every = configurations(runs)
    return tables.sections(every, tidy(every), baseline, grouping)


def labels(section: Section) -> list[str]:
    return [each.label for each in section.configurations]


def estimate(section: Section, label: str, column: str) -> tuple[float, float, int]:
    """Return mean, deviation and number of seeds."""
    place = labels(section).index(label)
    return tuple(each.at[place, column] for each in (section.means, section.deviations, section.seeds))  # type: ignore[return-value]


def mean(section: Section, label: str, column: str) -> float:
    return estimate(section, label, column)[0]


def test_configurations_are_named_by_what_varies() -> None:
    runs = [run(criterion="wanda"), run(criterion="mwanda"), run(criterion="mwanda", sparsity=0.7)]
    assert [each.label for each in configurations(runs)] == ["mwanda, 0.5", "mwanda, 0.7", "wanda, 0.5"]
    assert [each.label for each in configurations(runs[:1])] == ["wanda, uniform, 0.5"]


def test_methods_of_several_solvers_are_compared_with_wanda_as_published() -> None:
    wanda, ours = run(criterion="wanda"), run(criterion="wanda", schedule="owl")
    swapped = replace(ours, results={**ours.results, "solver": {"name": "swap", "settings": {}}})
    (section,) = sections([wanda, swapped], None)
    assert mean(section, "swap, owl", "baseline") == 0


def test_settings_of_a_choice_vary_only_among_runs_of_that_choice() -> None:
    def setting(**criterion: object) -> dict[str, Any]:
        return {"criterion": {"_target_": "x", **criterion}, "calibration": {"seed": 3, "length": 128}}

    runs = [run(criterion="wanda", config=setting()), run(criterion="mwanda", config=setting(variance_weight=0.5))]
    assert [each.label for each in configurations(runs)] == ["mwanda", "wanda"]
    runs.append(run(criterion="mwanda", config=setting(variance_weight=1.0)))
    labels = [each.label for each in configurations(runs)]
    assert labels == ["mwanda, variance_weight=0.5", "mwanda, variance_weight=1.0", "wanda"]


def test_speed_and_seeds_make_no_configuration_of_their_own() -> None:
    def setting(batch: int, seed: int) -> dict[str, Any]:
        return {"pruner": {"batch_size": batch, "order": "arrival"}, "calibration": {"seed": seed}}

    runs = [run(seed=seed, config=setting(batch, seed)) for seed, batch in ((1, 8), (0, 16))]
    (only,) = configurations(runs)
    assert [each.seed for each in only.runs] == ["0", "1"]
    assert repeated(only) == []
    assert repeated(configurations([*runs, runs[0]])[0]) == ["1"]


def test_a_table_by_hand() -> None:
    wanda = ratios(2, 4, 8)
    runs = [
        run(criterion="wanda", seed=0, ratios=wanda, calibrated=["eng_Latn"], significant=["swh_Latn"]),
        run(criterion="wanda", seed=1, ratios=ratios(2, 4, 1), calibrated=["eng_Latn"], significant=[]),
        run(criterion="mwanda", seed=0, ratios=ratios(1, 2, 4), calibrated=["eng_Latn"], significant=[]),
    ]
    (section,) = sections(runs, None)
    assert section.baseline == {"criterion": "wanda", "solver": "threshold", "schedule": "uniform"}
    assert estimate(section, "wanda", "ratio") == pytest.approx(((4 + 2) / 2, math.sqrt(2), 2))
    assert estimate(section, "wanda", "pruned") == pytest.approx((30, math.sqrt(200), 2))
    assert mean(section, "wanda", "dense") == pytest.approx(10)
    assert mean(section, "wanda", "worst") == pytest.approx(6)
    assert mean(section, "wanda", "spread") == pytest.approx(4)
    assert mean(section, "wanda", "hurt") == pytest.approx(1 / 6)
    assert mean(section, "wanda", "seen") == pytest.approx(2)
    assert mean(section, "wanda", "unseen") == pytest.approx((math.sqrt(32) + 2) / 2)
    assert section.worst[labels(section).index("wanda")] == "swh_Latn/deu_Latn"
    # Only seed 0 is there of both.
    assert estimate(section, "mwanda", "baseline") == pytest.approx((-0.5, math.nan, 1), nan_ok=True)
    assert math.isnan(mean(section, "wanda", "baseline"))
    assert {name: codes for name, codes in section.groups.items()} == {code: (code,) for code in wanda}
    assert mean(section, "mwanda", "group:deu_Latn") == pytest.approx(2)


def test_the_baseline_is_that_of_the_same_sparsity_whatever_its_other_settings() -> None:
    def setting(criterion: dict[str, object]) -> dict[str, Any]:
        return {"criterion": criterion}

    runs = []
    for sparsity, factor in ((0.5, 1.0), (0.7, 3.0)):
        runs.append(run(criterion="wanda", sparsity=sparsity, ratios=ratios(2 * factor, 2, 2)))
        for weight in (0.5, 1.0):
            config = setting({"variance_weight": weight})
            runs.append(run(criterion="mwanda", sparsity=sparsity, ratios=ratios(2 * factor, 2, 2 * 8), config=config))
    (section,) = sections(runs, None)
    against = [mean(section, label, "baseline") for label in labels(section) if "mwanda" in label]
    assert against == pytest.approx([1.0] * 4)
    (section,) = sections(runs, {"criterion": "mwanda", "criterion.variance_weight": "1.0"})
    assert mean(section, "wanda, 0.7", "baseline") == pytest.approx(-0.5)


def test_a_baseline_that_is_not_there_is_refused_with_the_choices() -> None:
    with pytest.raises(ConfigurationError, match="criterion=ria: no run has it; choices: criterion=wanda"):
        sections([run()], {"criterion": "ria"})
    with pytest.raises(ConfigurationError, match="no run has a setting 'critrion'; choices: criterion"):
        sections([run()], {"critrion": "wanda"})
    (section,) = sections([run(criterion="ria")], None)
    assert section.baseline is None


def test_protocols_are_never_in_one_table() -> None:
    other = ("ffff", "sentence/1", "embedded")
    runs = [run("a"), run("b", criterion="mwanda", protocol=other), run("c", criterion="ria", protocol=None)]
    first, second = sections(runs, None)
    assert [first.protocol[0], second.protocol[0]] == ["0f99e0a16476", "ffff"]
    assert labels(first) == ["wanda"]
    assert labels(second) == ["mwanda"]
    assert second.baseline is None  # the Wanda run was measured by another protocol


def test_names_in_a_table_say_what_varies_in_it_and_files_of_all_tables_what_varies_in_any() -> None:
    other = ("ffff", "sentence/1", "embedded")
    first = [run(criterion="wanda"), run(criterion="mwanda")]
    second = [run(criterion=name, pattern="2of4", protocol=other) for name in ("wanda", "ria")]
    one, two = sections([*first, *second], None)
    assert [labels(one), labels(two)] == [["mwanda", "wanda"], ["ria", "wanda"]]
    assert one.common == "model some/model, solver threshold, schedule uniform, pattern unstructured, sparsity 0.5"
    assert set(two.summary()["configuration"]) == {"ria, 2of4", "wanda, 2of4"}
    (alone,) = [each for each in sections([*first[:1], *second], None) if each.protocol != other]
    assert labels(alone) == ["wanda, unstructured"]  # there is nothing to tell it from


def test_names_that_would_be_alike_stay_whole() -> None:
    def weighted(sparsity: float, **more: object) -> Run:
        return run(criterion="mwanda", sparsity=sparsity, config={"criterion": more})

    other = run(criterion="mwanda", config={"criterion": {"weight": 2.0}}, protocol=("ffff", "sentence/1", "embedded"))
    runs = [weighted(0.5, weight=1.0), weighted(0.5), weighted(0.7, weight=1.0), other]
    (one,) = [each for each in sections(runs, None) if each.protocol != other.protocol]
    assert sorted(labels(one)) == ["0.5", "0.5, weight=1.0", "0.7, weight=1.0"]


def test_a_table_is_over_the_languages_that_all_have() -> None:
    more = {**ratios(2, 2, 2), "fra_Latn": 1000.0}
    (section,) = sections([run(criterion="wanda"), run(criterion="mwanda", ratios=more)], None)
    assert section.languages == ("eng_Latn", "deu_Latn", "swh_Latn")
    assert section.left_out == ("fra_Latn",)
    assert mean(section, "mwanda", "ratio") == pytest.approx(2)


def test_an_infinite_perplexity_stays_infinite() -> None:
    runs = [run(criterion="wanda"), run(criterion="magnitude", ratios={**ratios(2, 2, 2), "swh_Latn": None})]
    (section,) = sections(runs, None)
    assert mean(section, "magnitude", "ratio") == math.inf
    assert mean(section, "magnitude", "baseline") == math.inf
    assert mean(section, "magnitude", "group:eng_Latn") == pytest.approx(2)
    assert "∞" in render.markdown(render.comparison(section))


def test_columns_of_languages() -> None:
    many = dict.fromkeys(["eng_Latn", "deu_Latn", "fra_Latn", "rus_Cyrl", "swh_Latn", "tur_Latn", "jpn_Jpan"], 2.0)
    many |= dict.fromkeys(["kor_Hang", "hin_Deva", "vie_Latn"], 2.0)
    (section,) = sections([run(ratios=many)], None)
    assert set(section.groups) <= {"high", "mid", "low", "unknown"}  # ten languages are too many columns
    (section,) = sections([run(ratios=many)], None, "script")
    assert section.groups["Latn"] == ("eng_Latn", "deu_Latn", "fra_Latn", "swh_Latn", "tur_Latn", "vie_Latn")


def test_the_tidy_table_has_a_row_for_each_run_language_and_metric() -> None:
    tasks = {
        "dense": {"parallel_cloze_eng_Latn": {"acc": 0.8, "acc_stderr": 0.05}},
        "pruned": {"parallel_cloze_eng_Latn": {"acc": 0.6, "acc_stderr": 0.06}},
        "difference": {"parallel_cloze_eng_Latn": {"acc": -0.2, "acc_stderr": 0.04}},
        "about": {"parallel_cloze_eng_Latn": {"suite": "parallel_cloze", "language": "eng_Latn", "chance": 0.25}},
    }
    frame = tidy(configurations([run("a", tasks=tasks, calibrated=["eng_Latn"]), run("b", seed=1)]))
    rows = frame.to_dict("records")
    assert all(tuple(row) == TIDY for row in rows)
    (ratio,) = [row for row in rows if (row["run"], row["language"], row["metric"]) == ("a", "swh_Latn", "ratio")]
    assert (ratio["value"], ratio["calibrated"], ratio["family"]) == (2, False, "Atlantic-Congo")
    assert ratio["low"] == pytest.approx(2 * math.exp(-0.1))
    (task,) = [row for row in rows if row["metric"] == "parallel_cloze_eng_Latn:acc:difference"]
    assert (task["value"], task["standard_error"], task["language"]) == (-0.2, 0.04, "eng_Latn")
    keys = [(row["run"], row["language"], row["metric"]) for row in rows]
    assert len(keys) == len(set(keys))
    (score,) = task_scores(frame).to_dict("records")
    assert (score["suite"], score["metric"], score["task"]) == ("parallel_cloze", "acc", "parallel_cloze_eng_Latn")
    assert (score["difference"], score["difference_error"]) == (-0.2, 0.04)


def test_the_frame_of_blocks_has_a_row_for_each_run_and_block() -> None:
    looked = {"layer": 1, "energy_lost": 0.3, "drift": None, "rank_correlation": 0.9, "intersection_over_union": 0.8}
    every = configurations([run("a", inside={"per_layer": [looked]}, layers=2), run("b", seed=1, layers=2)])
    frame = blocks(every)
    assert list(frame) == list(BLOCK)
    assert list(zip(frame["run"], frame["layer"], frame["achieved"], strict=True)) == [
        ("a", 0, 0.5), ("a", 1, 0.5), ("b", 0, 0.5), ("b", 1, 0.5),
    ]  # fmt: skip
    assert frame["energy_lost"].tolist() == pytest.approx([math.nan, 0.3, math.nan, math.nan], nan_ok=True)
    assert frame["drift"].isna().all()
    assert set(of_first_seed(every, frame)["run"]) == {"a"}


def test_a_seed_without_a_number_takes_the_mean_away_and_an_infinite_one_makes_it_infinite() -> None:
    untested = run(seed=1)
    for pair in untested.results["perplexity"]["paired"].values():
        pair["significant"] = None
    (section,) = sections([run(seed=0), untested], None)
    assert math.isnan(mean(section, "wanda, uniform, 0.5", "hurt"))
    (section,) = sections([run(seed=0), run(seed=1, ratios={**ratios(2, 2, 2), "swh_Latn": None})], None)
    assert estimate(section, "wanda, uniform, 0.5", "ratio")[:2] == pytest.approx((math.inf, math.nan), nan_ok=True)
    assert mean(section, "wanda, uniform, 0.5", "hurt") == pytest.approx(1 / 6)


def test_of_runs_with_the_same_seed_the_last_one_counts() -> None:
    (section,) = sections([run(ratios=ratios(2, 2, 2)), run(ratios=ratios(3, 3, 3))], None)
    assert estimate(section, "wanda, uniform, 0.5", "ratio") == pytest.approx((3, math.nan, 1), nan_ok=True)


def test_no_language_that_all_have_is_a_table_without_numbers() -> None:
    (section,) = sections([run("a", ratios={"eng_Latn": 2}), run("b", seed=1, ratios={"deu_Latn": 2})], None)
    assert section.languages == ()
    assert section.summary().empty
    assert render.markdown(render.comparison(section)).count("|") == 9


def test_the_summary_has_a_row_for_each_number() -> None:
    (section,) = sections([run(), run(criterion="mwanda", ratios=ratios(1, 1, 1))], None)
    rows = section.summary().set_index(["configuration", "column"])
    assert rows.loc[("mwanda", "baseline"), "mean"] == pytest.approx(-0.5)
    assert ("wanda", "baseline") not in rows.index
    assert rows.loc[("wanda", "eng_Latn"), "n"] == 1
