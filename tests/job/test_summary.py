"""What a person sees."""

import copy
import io
import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from rich.console import Console
from rich.logging import RichHandler
from tiny_models import save_tiny_model, tiny_model

from mwanda.job.inspection import inspection
from mwanda.job.memory import Plan
from mwanda.job.summary import BAR_WIDTH, summary
from mwanda.languages import Language, find
from mwanda.models.source import PretrainedModel
from mwanda.statistics import Needs
from mwanda.system.terminal import console, number, quiet_libraries


FOLDER = Path("outputs/[red]run")


def _measured(perplexity: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"perplexity": perplexity, "bits_per_byte": 1.25, "tokens": 9, "bytes": 9, "low": low, "high": high}


def _change(languages: int, ratio: float, low: float | None, high: float | None) -> dict[str, Any]:
    return {
        "languages": languages,
        "ratio": ratio,
        "low": low,
        "high": high,
        "share_hurt": 1 / 3,
        "share_helped": 0.0,
    }


RESULTS: dict[str, Any] = {
    "evaluation": {"dense": {"tokens_per_second": 1234.5}, "pruned": {"tokens_per_second": 999.4}},
    "model": {
        "id": "folder/[red]model",
        "parameters": 8000,
        "prunable_parameters": 2000,
        "zeros_before": 100,
        "left_dense": [
            {"what": "norms", "weights": 40},
            {"what": "model.[vision]: calibration text does not pass through it", "weights": 4800},
            {"what": "input embeddings", "weights": 1000},
            {"what": "router", "weights": 60},
            {"what": "convolution", "weights": 100},
        ],
    },
    "timing": {"total": 12.3},
    "sparsity": {
        "target": 0.5,
        "achieved": 0.45,
        "pattern": "unstructured",
        "per_layer": [
            {"layer": 0, "target": 0.4, "achieved": 0.4},
            {"layer": 1, "target": 0.6, "achieved": 0.5},
            {"layer": 2, "target": 0.6, "achieved": 0.9},
        ],
    },
    "perplexity": {
        "protocol": {"name": "document/1", "hash": "abc", "corpus": "embedded"},
        "dense": {"eng_Latn": _measured(8.0), "swh_Latn": _measured(10.0), "amh_Ethi": _measured(20.0)},
        "pruned": {
            "eng_Latn": _measured(16.0, 15.04, 17.06),
            "swh_Latn": _measured(15.0),
            "amh_Ethi": _measured(50.0, 40.0),
        },
        "aggregate": {
            "dense": {"geometric_mean": 11.7, "mean": 12.67, "worst": 20.0, "worst_language": "amh_Ethi"},
            "pruned": {"geometric_mean": 22.9, "mean": 27.0, "worst": 50.0, "worst_language": "amh_Ethi"},
            "paired": {
                **_change(3, 1.96, 1.5, 2.5),
                "worst_language": "amh_Ethi",
                "worst_ratio": 2.5,
                "best_language": "swh_Latn",
                "best_ratio": 1.5,
                "spread": {"log_ratio": 0.51, "low": 0.4, "high": 0.6},
                "by_calibration": {"seen": _change(3, 1.96, 1.5, 2.5)},
            },
        },
        "paired": {
            "eng_Latn": {
                "log_ratio": math.log(2),
                "low": math.log(1.8),
                "high": math.log(2.2),
                "significant": True,
                "units": 12,
            },
            "swh_Latn": {"log_ratio": math.log(1.5), "low": None, "high": None, "significant": False, "units": 1},
        },
    },
}


@pytest.fixture
def languages() -> list[Language]:
    return find(["eng_Latn", "swh_Latn", "amh_Ethi"])


@pytest.fixture
def own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """Give the test a logger without handlers, and take back what it does to the libraries."""
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    logger = logging.getLogger("mwanda")
    verbosity, level = transformers_logging.get_verbosity(), logger.level
    shown = transformers_logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setenv("TQDM_DISABLE", "")
    monkeypatch.delenv("TQDM_DISABLE")
    yield logger
    logger.setLevel(level)
    transformers_logging.set_verbosity(verbosity)
    if shown[0]:
        transformers_logging.enable_progress_bar()
    if shown[1]:
        enable_progress_bars()


def _summary(results: dict[str, Any], languages: list[Language], *, colour: bool = False) -> str:
    out = Console(record=True, width=120, force_terminal=colour, color_system="standard", file=io.StringIO())
    summary(results, FOLDER, languages, out)
    return out.export_text(styles=colour)


def test_a_row_for_each_language_the_least_hurt_first(languages: list[Language]) -> None:
    shown = _summary(RESULTS, languages)
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in shown.splitlines() if "_" in line[:12]]
    assert rows == [
        ["swh_Latn  Swahili", "Atlantic-Congo", "10.00", "15.00", "× 1.50", "–", "1.25 → 1.25"],
        ["eng_Latn  English", "Indo-European", "8.00", "16.00", "× 2.00 *", "1.80 – 2.20", "1.25 → 1.25"],
        ["amh_Ethi  Amharic", "Afro-Asiatic", "20.00", "50.00", "× 2.50", "–", "1.25 → 1.25"],
    ]
    assert "embedded, protocol document/1 abc" in shown


def test_the_aggregates_stand_below_and_name_the_worst_language(languages: list[Language]) -> None:
    lines = [" ".join(line.replace("│", " ").split()) for line in _summary(RESULTS, languages).splitlines()]
    assert "geometric mean 11.70 22.90 × 1.96 1.50 – 2.50" in lines
    assert "mean 12.67 27.00 × 2.13" in lines
    assert "worst language (amh_Ethi) 20.00 50.00 × 2.50" in lines


def test_the_change_over_all_languages_is_told_below_the_table(languages: list[Language]) -> None:
    lines = [line.strip() for line in _summary(RESULTS, languages).splitlines()]
    expected = "spread of the ratios (logarithm): 0.51 (0.40 – 0.60), from swh_Latn × 1.50 to amh_Ethi × 2.50"
    assert expected in lines
    assert "significantly hurt: 1 of 3 languages, helped: 0" in lines
    assert "evaluation, tokens a second: dense 1,234, pruned 999" in lines
    assert not any("calibrated on" in line for line in lines)
    mark = "* significant at 5 %: Wilcoxon signed-rank over sentences, Holm over languages"
    assert mark in lines


@pytest.mark.parametrize(("units", "told"), [(6, True), (7, False)])
def test_too_few_sentences_for_any_significance_are_pointed_out(
    languages: list[Language], units: int, told: bool
) -> None:
    """Three languages with six sentences: the smallest p is 2 / 2^6, three times which is not below 0.05."""
    results = copy.deepcopy(RESULTS)
    for pair in results["perplexity"]["paired"].values():
        pair["units"] = units
    expected = "no ratio could be: 6 sentences of a language are too few to test 3 languages; measure more"
    assert (expected in " ".join(_summary(results, languages).split())) == told


def test_languages_that_did_not_calibrate_are_told_apart(languages: list[Language]) -> None:
    results = copy.deepcopy(RESULTS)
    change = results["perplexity"]["aggregate"]["paired"]
    change["by_calibration"] = {"seen": _change(1, 1.5, 1.25, 1.75), "unseen": _change(2, 2.5, None, None)}
    lines = [line.strip() for line in _summary(results, languages).splitlines()]
    assert "calibrated on × 1.50 (1.25 – 1.75), 1 of 3 languages; not calibrated on × 2.50 (–), 2 of 3" in lines


def test_results_of_before_there_were_pairs_are_shown_without_them(languages: list[Language]) -> None:
    results = copy.deepcopy(RESULTS)
    del results["perplexity"]["paired"], results["perplexity"]["aggregate"]["paired"], results["evaluation"]
    shown = _summary(results, languages)
    assert "× 1.50" in shown
    assert "Wilcoxon" not in shown
    assert "spread" not in shown


def test_a_bar_for_each_layer_is_as_long_as_its_sparsity(languages: list[Language]) -> None:
    bars = re.findall(r"^ *(\d+) +(█*)(░*) +([\d.]+) *$", _summary(RESULTS, languages), re.MULTILINE)
    assert [(layer, len(filled), achieved) for layer, filled, _, achieved in bars] == [
        ("0", 12, "0.4000"),
        ("1", 15, "0.5000"),
        ("2", 27, "0.9000"),
    ]
    assert {len(filled) + len(rest) for _, filled, rest, _ in bars} == {BAR_WIDTH}


def test_the_end_says_what_is_zero_and_where_the_record_is_with_brackets_as_they_are(languages: list[Language]) -> None:
    shown = _summary(RESULTS, languages)
    assert "folder/[red]model: 45.0000% of 2,000 prunable weights are zero (5.0% were before); 12 s" in shown
    assert "record: outputs/[red]run/results.json" in shown


def test_what_is_left_dense_is_told_with_its_share_the_largest_first(languages: list[Language]) -> None:
    shown = _summary(RESULTS, languages)
    assert (
        "left dense: 75.0% of all weights (model.[vision]: calibration text does not pass through it 60.0%; "
        "input embeddings 12.5%; convolution 1.2%; router 0.8%; and 1 more)"
    ) in shown


def test_without_evaluation_there_is_no_table_of_languages(languages: list[Language]) -> None:
    shown = _summary(RESULTS | {"perplexity": {}}, languages)
    assert "Perplexity" not in shown
    assert "Sparsity per block" in shown


def test_perplexities_that_the_record_has_no_number_for_are_dashes(languages: list[Language]) -> None:
    results = copy.deepcopy(RESULTS)
    for code in ("eng_Latn", "swh_Latn"):
        results["perplexity"]["pruned"][code] |= {"perplexity": None, "bits_per_byte": None, "low": None, "high": None}
        results["perplexity"]["paired"][code] |= {"log_ratio": None, "low": None, "high": None}
    results["perplexity"]["aggregate"]["pruned"] |= {"geometric_mean": None, "mean": None}
    results["perplexity"]["aggregate"]["paired"] |= {"ratio": None, "low": None, "high": None, "worst_ratio": None}
    lines = [" ".join(line.replace("│", " ").split()) for line in _summary(results, languages).splitlines()]
    assert "eng_Latn English Indo-European 8.00 – × – * – 1.25 → –" in lines
    assert "geometric mean 11.70 – × – –" in lines


def test_colours_go_from_green_to_red_in_a_terminal_only(languages: list[Language]) -> None:
    coloured = _summary(RESULTS, languages, colour=True)
    for colour, ratio in (("32", "1.50"), ("33", "2.00"), ("31", "2.50")):
        assert f"\x1b[{colour}m× {ratio}" in coloured
    assert "\x1b" not in _summary(RESULTS, languages)


def test_in_a_pipe_nothing_is_cut_and_no_escape_code_written(
    languages: list[Language], capsys: pytest.CaptureFixture[str]
) -> None:
    summary(RESULTS | {"model": RESULTS["model"] | {"id": "x" * 200}}, FOLDER / ("y" * 200), languages)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "…" not in shown
    assert "x" * 200 in shown
    assert "y" * 200 + "/results.json" in shown


def test_outside_a_terminal_the_console_is_wide_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert console().width == 120
    assert not console().is_terminal


@pytest.mark.parametrize(("value", "text"), [(1.005e3, "1005.00"), (None, "–"), (float("inf"), "inf")])
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_stages_go_to_standard_error_once(own_logging: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    quiet_libraries()
    quiet_libraries()
    assert [isinstance(handler, RichHandler) for handler in own_logging.handlers] == [True]
    logging.getLogger("mwanda.job").info("loading [red]model")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("loading [red]model") == 1
    assert "\x1b" not in captured.err


def test_bars_of_libraries_are_off_outside_a_terminal(own_logging: logging.Logger) -> None:
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers.utils import logging as transformers_logging

    quiet_libraries()
    assert are_progress_bars_disabled()
    assert not transformers_logging.is_progress_bar_enabled()
    assert transformers_logging.get_verbosity() == logging.ERROR


def plan(order: Literal["block", "arrival", "oneshot"], languages: int, tokens: int) -> Plan:
    return Plan(order, "none", "device", Needs.NORMS, languages, tokens, 32, torch.float32)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("bloom", ["self_attention.query_key_value", "48 × 16", "1,536", "input embeddings, tied to the LM head"]),
        (
            "gpt2",
            ["attn.c_attn", "48 × 16", "24 × 16", "transformer.wpe: outside the blocks", "tied to the LM head"],
        ),
        ("mixtral", ["gate_up_proj, 4 experts", "48 × 16", "6,144", "mlp.gate.weight in the blocks: a router, which"]),
        ("qwen2_moe", ["mlp.shared_expert_gate.weight in the blocks: left alone by its family"]),
        ("gpt_neox", ["mlp.dense_h_to_4h", "24 × 16", "input embeddings: never", "LM head: never"]),
    ],
)
def test_inspection_names_matrices_what_is_left_out_and_memory(
    family: str, expected: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = PretrainedModel(str(save_tiny_model(family, tmp_path / "model")))
    inspection(source, plan("arrival", 2, 64))
    shown = capsys.readouterr().out
    for part in [*expected, "2 blocks", "0–1 (2)", "norms and biases", "Memory of a run", "order arrival", "GiB"]:
        assert part in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("family", ["bloom", "qwen3_moe", "mt5", "m2m_100", "xlm-roberta"])
def test_inspection_counts_every_parameter_once(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inspection(PretrainedModel(str(save_tiny_model(family, tmp_path))), plan("block", 2, 64))
    shown = capsys.readouterr().out
    prunable = re.search(r"in all +│ +│ +([\d,]+)", shown)
    assert prunable is not None
    left_out = re.findall(r"│ +([\d,]+) │ +[\d.]+% │$", shown.partition("Left dense")[2], re.MULTILINE)
    total = sum(int(count.replace(",", "")) for count in [prunable.group(1), *left_out])
    assert total == sum(parameter.numel() for parameter in tiny_model(family).parameters())
