"""A job from end to end: what it leaves, what it refuses, and that it can be repeated."""

import copy
import json
import logging
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import tiny_job
import torch
import transformers
import yaml
from tiny_models import BLOCKS, save_tiny_model, tiny_model, tiny_tokenizer

from mwanda.config.compose import compose
from mwanda.corpora import embedded
from mwanda.corpora.embedded import all_sentences
from mwanda.errors import (
    AuditError,
    ConfigurationError,
    CorpusError,
    EvaluationError,
    InputError,
    ModelError,
    SparsityError,
)
from mwanda.evaluation.perplexity import Perplexity
from mwanda.evaluation.sentence_losses import read_sentence_losses
from mwanda.evaluation.significance import compare
from mwanda.export import masks
from mwanda.job import components, folder
from mwanda.job.claim import LOCK
from mwanda.job.record import Results
from mwanda.job.run import run
from mwanda.job.typed import problems
from mwanda.models import blocks_of
from mwanda.pruner import Pruner
from mwanda.system.conf import CONF
from mwanda.tracking import RunIdentity
from mwanda.tracking.none import NoTracking


ROOT = CONF.parent
FILES = {"config.yaml", "overrides.yaml", "run.log", "results.json", "units.parquet", "status.json"}


GROUPS = {
    "family": {"Indo-European", "Atlantic-Congo"},
    "script": {"Latn"},
    "resource_level": {"high", "low"},
    "calibration": {"seen"},
}


def left_in(folder: Path) -> set[str]:
    """Return the names of what a run has left, but for that which depends on changes in this checkout."""
    return {path.name for path in folder.iterdir()} - {"git.diff", LOCK}


@pytest.fixture(autouse=True)
def own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take back what a job does to the libraries of this process."""
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    logger = logging.getLogger("mwanda")
    verbosity, level = transformers_logging.get_verbosity(), logger.level
    shown = transformers_logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setenv("TQDM_DISABLE", "1")
    yield
    logger.setLevel(level)
    transformers_logging.set_verbosity(verbosity)
    if shown[0]:
        transformers_logging.enable_progress_bar()
    if shown[1]:
        enable_progress_bars()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model("bloom", tmp_path_factory.mktemp("bloom"))


class Listener(NoTracking):
    """A tracker that writes down what it is told."""

    calls: list[tuple[Any, ...]]

    def __init__(self) -> None:
        object.__setattr__(self, "calls", [])

    def start(self, run: RunIdentity, config: Mapping[str, Any]) -> None:
        self.calls.append(("start", run, copy.deepcopy(config)))

    def log_stage(self, stage: str, seconds: float) -> None:
        self.calls.append(("stage", stage, seconds))

    def log_results(self, results: Mapping[str, Any]) -> None:
        self.calls.append(("results", copy.deepcopy(results)))

    def finish(self, failed: bool = False) -> None:
        self.calls.append(("finish", failed))


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Listener:
    """Put a listener in the place of the tracker."""
    listener, original = Listener(), components.Parts.of.__func__  # type: ignore[attr-defined]

    def of(cls: type, config: Mapping[str, Any]) -> components.Parts:
        parts: components.Parts = original(cls, config)
        object.__setattr__(parts, "tracker", listener)
        return parts

    monkeypatch.setattr(components.Parts, "of", classmethod(of))
    return listener


def _read(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return content


def _local_corpus(folder: Path, sentences: Mapping[str, list[str]]) -> Path:
    folder.mkdir()
    for code, lines in sentences.items():
        (folder / f"{code}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


# ---- what a run leaves


def test_a_run_leaves_its_files_and_its_results(model: Path, tmp_path: Path) -> None:
    returned = tiny_job.run(model, tmp_path / "run", "schedule=owl_cwl")
    results = _read(tmp_path / "run")
    assert list(problems(results, Results)) == []
    groups = {grouping: set(results["perplexity"]["aggregate"]["paired"][f"by_{grouping}"]) for grouping in GROUPS}
    assert groups == GROUPS
    assert set(results["perplexity"]["paired"]) == set(tiny_job.LANGUAGES)
    assert results["timing"].keys() == {"load", "calibrate", "schedule", "prune", "evaluate", "total"}
    assert results == json.loads(json.dumps(returned))
    assert results["status"] == "complete"
    assert left_in(tmp_path / "run") == FILES
    assert datetime.fromisoformat(results["started"]) <= datetime.fromisoformat(results["finished"])


def test_the_numbers_of_a_run_belong_together(model: Path, tmp_path: Path) -> None:
    results = tiny_job.run(model, tmp_path / "run", "sparsity=0.25")
    sparsity, calibration, reference = results["sparsity"], results["calibration"], tiny_model("bloom")
    matrices = [matrix for block in blocks_of(reference) for matrix in block.matrices]
    assert [(each["name"], tuple(each["shape"])) for each in sparsity["per_matrix"]] == [
        (matrix.name, matrix.shape) for matrix in matrices
    ]
    assert results["model"]["parameters"] == sum(parameter.numel() for parameter in reference.parameters())
    assert results["model"]["prunable_parameters"] == sum(matrix.weight.numel() for matrix in matrices)
    assert [layer["layer"] for layer in sparsity["per_layer"]] == list(range(BLOCKS))
    zeros = sum(each["zeros"] for each in sparsity["per_matrix"])
    assert sparsity["achieved"] == zeros / results["model"]["prunable_parameters"] == 0.25
    assert calibration["tokens_per_language"] == dict.fromkeys(tiny_job.LANGUAGES, 2 * 16)
    assert (calibration["sequences"], calibration["length"], calibration["tokens"]) == (4, 16, 64)
    for measured in (results["perplexity"]["dense"], results["perplexity"]["pruned"]):
        for code in tiny_job.LANGUAGES:
            one = measured[code]
            loss = math.log(one["perplexity"]) * one["tokens"]
            assert one["bits_per_byte"] == pytest.approx(loss / math.log(2) / one["bytes"])
    stages = [seconds for stage, seconds in results["timing"].items() if stage != "total"]
    assert sum(stages) <= results["timing"]["total"]


def test_the_statistics_can_be_made_again_from_the_units(model: Path, tmp_path: Path) -> None:
    results = tiny_job.run(model, tmp_path / "run", "evaluation.sentences=8", "sparsity=0.6")["perplexity"]
    units = read_sentence_losses(tmp_path / "run" / "units.parquet")
    assert compare(units["dense"], units["pruned"]).as_record() == results["paired"]
    for which in ("dense", "pruned"):
        for code, one in units[which].items():
            assert len(one) == 8
            assert math.exp(sum(one.nats) / sum(one.tokens)) == pytest.approx(results[which][code]["perplexity"])
            assert sum(one.characters) == results[which][code]["characters"]
    for code, pair in results["paired"].items():
        ratio = results["pruned"][code]["perplexity"] / results["dense"][code]["perplexity"]
        assert math.exp(pair["log_ratio"]) == pytest.approx(ratio)


def test_text_is_tokenised_once_for_both_models(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, original = [], Perplexity.texts

    def texts(self: Perplexity, *arguments: Any) -> Any:
        calls.append(self.protocol)
        return original(self, *arguments)

    monkeypatch.setattr(Perplexity, "texts", texts)
    results = tiny_job.run(model, tmp_path / "run", "evaluation.protocol=sentence")
    assert calls == ["sentence"]
    assert results["perplexity"]["protocol"]["name"] == "sentence/1"


def test_zeros_that_were_there_are_counted(tmp_path: Path) -> None:
    folder = save_tiny_model("bloom", tmp_path / "model")
    sparse = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for block in blocks_of(sparse):
            for matrix in block.matrices:
                matrix.weight[:, :4] = 0
    sparse.save_pretrained(folder)
    results = tiny_job.run(folder, tmp_path / "run")
    before = sum(matrix.shape[0] * 4 for block in blocks_of(sparse) for matrix in block.matrices)
    assert results["model"]["zeros_before"] == before
    assert sum(each["zeros_before"] for each in results["sparsity"]["per_matrix"]) == before
    assert results["sparsity"]["achieved"] == 0.5


def test_config_and_overrides_can_be_read_again_and_give_the_same_configuration(model: Path, tmp_path: Path) -> None:
    tiny_job.run(model, tmp_path / "run", "criterion=ria")
    overrides = yaml.safe_load((tmp_path / "run" / "overrides.yaml").read_text(encoding="utf-8"))
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8"))
    assert overrides == tiny_job.overrides(model, "criterion=ria")
    again = compose(overrides)
    # The folder's default name holds the time; languages are written as what the set came to.
    assert {**config, "output_dir": None, "langs": None} == {**again, "output_dir": None, "langs": None}
    assert config["langs"] == {"codes": list(tiny_job.LANGUAGES)}


def test_the_log_holds_stages_and_neither_bars_nor_escape_codes(model: Path, tmp_path: Path) -> None:
    tiny_job.run(model, tmp_path / "first")
    tiny_job.run(model, tmp_path / "second")
    for name in ("first", "second"):
        lines = (tmp_path / name / "run.log").read_text(encoding="utf-8").splitlines()
        assert all(re.match(r"\d{4}-\d\d-\d\d [\d:,]+ INFO mwanda\.[\w.]+: \S", line) for line in lines), lines
        stages = [line.partition(": ")[2] for line in lines if "memory: about" not in line]
        assert len(stages) == len(lines) - 1
        assert stages == [
            "reading 2 languages of embedded",
            f"loading {model}",
            "2 blocks, 6144 prunable weights",
            "evaluating the dense model",
            "calibrating and pruning to 0.5",
            "evaluating the pruned model",
        ]


def test_the_terminal_gets_the_summary(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_job.run(model, tmp_path / "run")
    captured = capsys.readouterr()
    for part in ("eng_Latn", "swh_Latn", "geometric mean", "Sparsity per block", f"{tmp_path}/run/results.json"):
        assert part in captured.out
    assert "evaluating the pruned model" in captured.err
    assert "\x1b" not in captured.out + captured.err
    assert "it/s" not in captured.err


def test_no_secret_is_written(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"HF_TOKEN": "hf_verysecrettoken", "WANDB_API_KEY": "0123456789abcdef" * 2}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    tiny_job.run(model, tmp_path / "run", "export=hf")
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > len(FILES)
    for path in files:
        for value in secrets.values():
            assert value.encode() not in path.read_bytes(), path


def test_the_tracker_hears_of_every_stage_and_the_results(model: Path, tmp_path: Path, listener: Listener) -> None:
    spec = tiny_job.spec(tmp_path / "run", tiny_job.overrides(model))
    results = run(replace(spec, study="my sweep"))
    assert results is not None
    kinds = [call[0] for call in listener.calls]
    assert kinds == ["start", *["stage"] * 6, "results", "finish"]
    _, identity, seen = listener.calls[0]
    assert seen == {**spec.config, "langs": {"codes": list(tiny_job.LANGUAGES)}}
    assert (identity.run_id, identity.group, identity.folder) == (results["run_id"], "my sweep", tmp_path / "run")
    assert identity.tags == ("bloom", "mwanda", "threshold", "uniform", "unstructured")
    assert [call[1] for call in listener.calls[1:7]] == list(results["timing"])
    assert listener.calls[-2] == ("results", results)
    assert listener.calls[-1] == ("finish", False)


# ---- exports


def test_the_exported_checkpoint_holds_the_zeros_and_perplexity_of_the_record(model: Path, tmp_path: Path) -> None:
    results = tiny_job.run(model, tmp_path / "run", "export=hf", "schedule=owl")
    exported = tmp_path / "run" / "model"
    again = transformers.AutoModelForCausalLM.from_pretrained(exported)
    zeros = {matrix.name: int((matrix.weight == 0).sum()) for block in blocks_of(again) for matrix in block.matrices}
    assert zeros == {each["name"]: each["zeros"] for each in results["sparsity"]["per_matrix"]}
    assert results["export"] == "model"
    assert f"configuration: {results['config_hash']}" in (exported / "README.md").read_text(encoding="utf-8")
    # Pruning to what is zero already changes nothing, so that the loaded model must measure as the pruned one did.
    kept = tiny_job.run(exported, tmp_path / "kept", f"sparsity={results['sparsity']['achieved']}")
    assert kept["perplexity"]["dense"] == results["perplexity"]["pruned"]


def test_the_exported_model_is_the_one_in_memory(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pruned: list[Any] = []
    prune = Pruner.prune

    def remember(self: Pruner, given: Any, *arguments: Any) -> Any:
        pruned.append(given)
        return prune(self, given, *arguments)

    monkeypatch.setattr(Pruner, "prune", remember)
    tiny_job.run(model, tmp_path / "run", "export=hf")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    tokens = torch.arange(40).reshape(2, 20)
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, pruned[0](tokens).logits)


def test_exported_masks_are_those_of_the_checkpoint(model: Path, tmp_path: Path) -> None:
    tiny_job.run(model, tmp_path / "model", "export=hf")
    results = tiny_job.run(model, tmp_path / "masks", "export=masks")
    found = masks.load(tmp_path / "masks" / results["export"])
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model" / "model")
    matrices = [matrix for block in blocks_of(again) for matrix in block.matrices]
    assert set(found) == {matrix.name for matrix in matrices}
    for matrix in matrices:
        assert torch.equal(found[matrix.name], matrix.weight != 0)


# ---- repeatable


def _reproducible(results: Mapping[str, Any]) -> dict[str, Any]:
    parts = ("config_hash", "model", "sparsity", "calibration", "schedule", "perplexity")
    return {part: results[part] for part in parts}


def test_two_runs_with_one_seed_are_the_same_and_another_seed_takes_other_text(model: Path, tmp_path: Path) -> None:
    first = tiny_job.run(model, tmp_path / "first", "export=masks", "seed=3")
    second = tiny_job.run(model, tmp_path / "second", "export=masks", "seed=3")
    other = tiny_job.run(model, tmp_path / "other", "export=masks", "seed=4")
    files = [tmp_path / folder / "masks.safetensors" for folder in ("first", "second", "other")]
    assert _reproducible(first) == _reproducible(second)
    found = [masks.load(file) for file in files]
    assert found[0].keys() == found[1].keys() == found[2].keys()
    assert all(torch.equal(kept, found[1][name]) for name, kept in found[0].items())
    assert any(not torch.equal(kept, found[2][name]) for name, kept in found[0].items())
    assert first["calibration"]["fingerprint"] != other["calibration"]["fingerprint"]
    assert first["config_hash"] != other["config_hash"]
    assert first["run_id"] != second["run_id"]


# ---- every choice once from end to end


def _choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _check_run(results: Mapping[str, Any], target: float) -> None:
    assert results["status"] == "complete"
    # A row of a tiny matrix holds as few as 16 weights, and the number of zeros in a row is rounded down.
    assert target - 1 / 16 < results["sparsity"]["achieved"] <= target
    for which in ("dense", "pruned"):
        assert all(math.isfinite(one["perplexity"]) for one in results["perplexity"][which].values())
    assert results["perplexity"]["dense"] != results["perplexity"]["pruned"]


@pytest.mark.parametrize("criterion", _choices("criterion"))
@pytest.mark.parametrize("schedule", _choices("schedule"))
def test_every_criterion_runs_under_every_schedule(criterion: str, schedule: str, model: Path, tmp_path: Path) -> None:
    results = tiny_job.run(model, tmp_path / "run", f"schedule={schedule}", f"criterion={criterion}")
    _check_run(results, 0.5)
    assert results["criterion"] == {
        "name": criterion,
        "settings": tiny_job.configuration(model, f"criterion={criterion}")["criterion"],
    }
    assert results["schedule"]["name"] == schedule
    matrices = results["sparsity"]["per_matrix"]
    units = {"uniform": 0, "atp": 0, "fisher": len(matrices)}
    assert len(results["schedule"]["signal"]) == units.get(schedule, BLOCKS)


@pytest.mark.parametrize("solver", _choices("solver"))
@pytest.mark.parametrize("order", _choices("pruner"))
def test_every_solver_runs_in_every_order_from_disk_too(solver: str, order: str, model: Path, tmp_path: Path) -> None:
    asked = ("criterion=wanda", f"solver={solver}", f"pruner={order}", "calibration.weights={swh_Latn: 3}")
    results, streamed = (
        tiny_job.run(model, tmp_path / offload, *asked, f"model.offload={offload}") for offload in ("none", "disk")
    )
    _check_run(results, 0.5)
    assert results["solver"] == {
        "name": solver,
        "settings": tiny_job.configuration(model, f"solver={solver}")["solver"],
    }
    assert results["calibration"]["weights"] == {"swh_Latn": 3}
    assert streamed["sparsity"]["masks"] == results["sparsity"]["masks"]
    assert streamed["perplexity"]["pruned"] == results["perplexity"]["pruned"]


@pytest.mark.parametrize("solver", ["sparsegpt", "admm"])
def test_a_job_may_match_the_dense_model_s_outputs(solver: str, model: Path, tmp_path: Path) -> None:
    asked = (f"solver={solver}", "solver.match=dense")
    with pytest.raises(ConfigurationError, match=r"^pruner\.order=arrival: solver\.match=dense .*; choices: block$"):
        tiny_job.run(model, tmp_path / "refused", *asked)
    _check_run(tiny_job.run(model, tmp_path / "run", *asked, "pruner=block"), 0.5)
    with pytest.raises(ConfigurationError, match=r"^calibration\.moment_share=0\.5: solver\.match=dense .* 1\.0$"):
        tiny_job.run(model, tmp_path / "share", *asked, "pruner=block", "calibration.moment_share=0.5")


@pytest.mark.parametrize("solver", ["swap", "admm", "sparsegpt"])
def test_a_job_may_take_correlations_from_some_of_the_tokens(solver: str, model: Path, tmp_path: Path) -> None:
    whole, some = (
        tiny_job.run(model, tmp_path / str(share), f"solver={solver}", f"calibration.moment_share={share}")
        for share in (1.0, 0.25)
    )
    _check_run(some, 0.5)
    assert some["calibration"]["moment_share"] == 0.25
    assert some["sparsity"]["masks"] != whole["sparsity"]["masks"]


@pytest.mark.parametrize("schedule", _choices("schedule"))
def test_a_schedule_of_matrices_is_recorded_with_their_targets(schedule: str, model: Path, tmp_path: Path) -> None:
    results = tiny_job.run(model, tmp_path / "run", f"schedule={schedule}", "schedule.level=matrix")
    _check_run(results, 0.5)
    assert results["schedule"]["level"] == "matrix"
    matrices = results["sparsity"]["per_matrix"]
    assert len(results["schedule"]["signal"]) == (0 if schedule in ("uniform", "atp") else len(matrices))
    assert len({round(each["target"], 6) for each in matrices}) > (0 if schedule == "uniform" else BLOCKS)
    for each in matrices:
        out, inputs = each["shape"]
        of_rows = out * int(each["target"] * inputs * (1 + 1e-12))
        assert of_rows <= each["zeros"] <= each["target"] * out * inputs * (1 + 1e-12)
        assert each["zeros"] == of_rows or schedule == "fisher"  # whose rows differ
    assert "level" not in tiny_job.run(model, tmp_path / "blocks", "schedule=owl")["schedule"]


@pytest.mark.parametrize("pattern", _choices("pattern"))
def test_every_pattern_runs(pattern: str, model: Path, tmp_path: Path) -> None:
    results = tiny_job.run(model, tmp_path / "run", f"pattern={pattern}", "export=masks")
    _check_run(results, 0.5)
    assert results["sparsity"]["pattern"] == pattern
    if pattern != "unstructured":
        kept, of = (int(number) for number in pattern.split("of"))
        for mask in masks.load(tmp_path / "run" / "masks.safetensors").values():
            assert bool((mask.reshape(-1, of).sum(dim=1) == kept).all())


@pytest.mark.parametrize("order", _choices("pruner"))
def test_every_order_runs(order: str, model: Path, tmp_path: Path) -> None:
    results = tiny_job.run(model, tmp_path / "run", f"pruner.order={order}")
    _check_run(results, 0.5)
    assert results["calibration"]["order"] == order


@pytest.mark.parametrize("family", ["llama", "opt", "xglm", "gpt_neox", "gpt2", "gemma3_text"])
def test_every_family_runs_and_its_export_loads(family: str, tmp_path: Path) -> None:
    folder = save_tiny_model(family, tmp_path / "model")
    results = tiny_job.run(folder, tmp_path / "run", "export=hf")
    _check_run(results, 0.5)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    zeros = {matrix.name: int((matrix.weight == 0).sum()) for block in blocks_of(again) for matrix in block.matrices}
    assert zeros == {each["name"]: each["zeros"] for each in results["sparsity"]["per_matrix"]}


# ---- evaluation


def test_without_evaluation_the_model_is_pruned_all_the_same(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = tiny_job.without_evaluation(model, "export=hf")
    results = run(tiny_job.spec(tmp_path / "run", overrides))
    assert results is not None
    assert results["perplexity"] == {}
    assert results["timing"]["evaluate"] == 0
    assert results["sparsity"]["achieved"] == 0.5
    assert "Perplexity per language" not in capsys.readouterr().out


def test_evaluation_text_may_come_from_another_corpus(model: Path, tmp_path: Path) -> None:
    lines = {code: [f"{code} sentence number {index} of a test" for index in range(6)] for code in tiny_job.LANGUAGES}
    corpus = _local_corpus(tmp_path / "corpus", lines)
    results = tiny_job.run(model, tmp_path / "run", f"evaluation.corpus={{choice: local, path: {corpus}}}")
    assert results["calibration"]["corpus"] == "embedded"
    assert results["perplexity"]["protocol"]["corpus"] == "local"
    for code in tiny_job.LANGUAGES:
        # The second half of the file evaluates; two sentences of it were asked for.
        assert results["perplexity"]["dense"][code]["bytes"] == sum(len(line) + 1 for line in lines[code][3:5])
    plain = tiny_job.run(model, tmp_path / "embedded")
    assert results["calibration"]["fingerprint"] == plain["calibration"]["fingerprint"]


# ---- refusals leave nothing behind


def test_text_that_calibrates_may_not_evaluate(model: Path, tmp_path: Path) -> None:
    seen = all_sentences("eng_Latn")[0]
    lines = {code: [f"{code} {index}" for index in range(3)] for code in tiny_job.LANGUAGES}
    lines["eng_Latn"].append(f"  {seen.upper()} ")
    corpus = _local_corpus(tmp_path / "corpus", lines)
    evaluation = f"evaluation.corpus={{choice: local, path: {corpus}}}"
    with pytest.raises(CorpusError, match="text of eng_Latn and the evaluation text of eng_Latn share the line"):
        tiny_job.run(model, tmp_path / "run", evaluation)
    assert not (tmp_path / "run").exists()


def test_text_that_calibrates_and_evaluates_is_left_out_where_the_user_says_so(model: Path, tmp_path: Path) -> None:
    seen = all_sentences("eng_Latn")[:3:2]
    lines = {code: [f"{code} {index}" for index in range(4)] for code in tiny_job.LANGUAGES}
    lines["swh_Latn"][2:] = [f"«{seen[0].upper()}»", seen[1]]
    corpus = _local_corpus(tmp_path / "corpus", lines)
    evaluation = f"evaluation.corpus={{choice: local, path: {corpus}}}"
    with pytest.raises(CorpusError, match="text of eng_Latn and the evaluation text of swh_Latn share the line"):
        tiny_job.run(model, tmp_path / "run", evaluation)
    results = tiny_job.run(model, tmp_path / "run", evaluation, "corpus.drop_overlap=true")
    assert results["calibration"]["overlap"] == {"drop": True, "dropped": {"eng_Latn": 2}}
    assert (
        "left out 2 calibration lines that evaluation text holds: eng_Latn 2"
        in (tmp_path / "run" / "run.log").read_text()
    )


@pytest.mark.parametrize("task", ["parallel_match", "parallel_cloze_deu_Latn"])
def test_text_that_tasks_ask_about_may_not_calibrate_either(task: str, model: Path, tmp_path: Path) -> None:
    lines = {code: [f"{code} {index}" for index in range(8)] for code in (*tiny_job.LANGUAGES, "deu_Latn")}
    lines["deu_Latn"][7] = lines["swh_Latn"][0]
    corpus = _local_corpus(tmp_path / "corpus", lines)
    typed = ["corpus=local", f"corpus.path={corpus}", "evaluation=harness", f"evaluation.tasks=[{task}]"]
    typed = [*tiny_job.without_evaluation(model)[:-1], *typed, "evaluation.pivot=deu_Latn"]
    with pytest.raises(CorpusError, match="text of swh_Latn and the evaluation text of deu_Latn share the line"):
        run(tiny_job.spec(tmp_path / "run", typed))


def test_of_a_language_all_of_whose_text_is_left_out_there_is_too_little(model: Path, tmp_path: Path) -> None:
    english = [f"The river rose on day {number}, and nobody slept." for number in range(20)]
    corpus = _local_corpus(tmp_path / "corpus", {"eng_Latn": english, "swh_Latn": [*english[10:], *"abcdefghij"]})
    typed = ["corpus=local", f"corpus.path={corpus}", "corpus.drop_overlap=true"]
    with pytest.raises(CorpusError, match=r"too little calibration text \(swh_Latn\)"):
        tiny_job.run(model, tmp_path / "run", *typed)


def test_a_model_that_gives_no_number_fails_the_run(tmp_path: Path) -> None:
    broken = tiny_model("llama")
    with torch.no_grad():
        broken.model.norm.weight[0] = math.nan
    broken.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    with pytest.raises(EvaluationError, match=r"the dense model gives no number \(NaN\) as the loss of .* in eng_Latn"):
        tiny_job.run(tmp_path / "model", tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["status"], results["error"]["type"]) == ("failed", "EvaluationError")


def test_a_pruned_model_alone_that_overflows_is_a_result_and_counts_as_hurt(tmp_path: Path) -> None:
    loud = tiny_model("llama")
    with torch.no_grad():
        loud.model.norm.weight.mul_(195)  # losses just below what a perplexity can be of
    loud.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    typed = ["sparsity=0.9", "evaluation.sentences=null"]
    results = tiny_job.run(tmp_path / "model", tmp_path / "run", *typed)
    perplexity = results["perplexity"]
    assert perplexity["overflowed"] == ["eng_Latn"]
    assert math.isfinite(perplexity["dense"]["eng_Latn"]["perplexity"])
    assert perplexity["pruned"]["eng_Latn"]["perplexity"] == math.inf
    assert (perplexity["paired"]["eng_Latn"]["lost"], perplexity["paired"]["eng_Latn"]["hurt"]) == (True, True)
    assert "infinite perplexity in eng_Latn, which counts as hurt" in (tmp_path / "run" / "run.log").read_text()
    again = tiny_job.run(tmp_path / "model", tmp_path / "run", *typed, "resume=true")
    assert again["perplexity"]["pruned"]["eng_Latn"]["perplexity"] is None


def test_too_little_text_is_refused_and_the_message_says_what_fits(
    model: Path, tmp_path: Path, listener: Listener
) -> None:
    with pytest.raises(CorpusError, match=r"calibration\.sequences=\d+ would fit"):
        tiny_job.run(model, tmp_path / "run", "calibration.sequences=4000")
    assert not (tmp_path / "run").exists()
    assert listener.calls == [("finish", True)]


@pytest.mark.parametrize("damage", ["no weights", "truncated weights", "no such architecture", "not finite"])
def test_a_broken_model_folder_is_refused(damage: str, tmp_path: Path) -> None:
    folder = save_tiny_model("bloom", tmp_path / "model")
    weights, config = folder / "model.safetensors", folder / "config.json"
    if damage == "no weights":
        weights.unlink()
    elif damage == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "no such architecture":
        config.write_text(config.read_text().replace('"bloom"', '"blossom"'))
    else:
        broken = tiny_model("bloom")
        with torch.no_grad():
            blocks_of(broken)[1].matrices[0].weight[0, 0] = math.nan
        broken.save_pretrained(folder)
    with pytest.raises(InputError, match=re.escape(str(folder)) if damage != "not finite" else "not finite"):
        tiny_job.run(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_pattern_that_does_not_divide_the_rows_is_refused_before_anything_is_tracked(
    tmp_path: Path, listener: Listener
) -> None:
    folder = tmp_path / "model"
    tiny_model("llama", intermediate_size=22).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    with pytest.raises(SparsityError, match="22"):
        tiny_job.run(folder, tmp_path / "run", "pattern=2of4")
    assert not (tmp_path / "run").exists()
    assert listener.calls == [("finish", True)]


# ---- failures leave a record


def test_a_failure_in_the_middle_is_recorded(
    model: Path,
    tmp_path: Path,
    listener: Listener,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(Pruner, "prune", fail)
    with pytest.raises(RuntimeError, match="out of luck"):
        tiny_job.run(model, tmp_path / "run")
    results = _read(tmp_path / "run")
    assert results["status"] == "failed"
    assert results["error"] == {"type": "RuntimeError", "message": "out of luck"}
    assert results["finished"] is not None
    assert results["environment"]["device"] == "cpu"
    assert left_in(tmp_path / "run") == {*FILES - {"units.parquet"}, folder.CHECKPOINT}
    log = (tmp_path / "run" / "run.log").read_text(encoding="utf-8")
    assert "ERROR mwanda.job.folder: the run failed\nTraceback" in log
    assert log.rstrip().endswith("RuntimeError: out of luck")
    assert listener.calls[-1] == ("finish", True)
    assert [call[0] for call in listener.calls].count("finish") == 1
    assert "results" not in [call[0] for call in listener.calls]
    assert "Traceback" not in capsys.readouterr().err


def test_the_tracker_is_closed_and_the_error_kept_when_the_record_cannot_be_written(
    model: Path, tmp_path: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("mwanda.job.results.write_json", full)
    with pytest.raises(OSError, match="disk full"):
        tiny_job.run(model, tmp_path / "run")
    assert listener.calls[-1] == ("finish", True)
    assert not any(isinstance(each, logging.FileHandler) for each in logging.getLogger("mwanda").handlers)


def test_an_audit_that_fails_is_no_refusal(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AuditError("a matrix was left out")

    monkeypatch.setattr("mwanda.pruner.engine.audit", fail)
    with pytest.raises(AuditError):
        tiny_job.run(model, tmp_path / "run")
    assert _read(tmp_path / "run")["error"] == {"type": "AuditError", "message": "a matrix was left out"}


def test_an_interrupt_is_recorded(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Pruner, "prune", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tiny_job.run(model, tmp_path / "run")
    assert _read(tmp_path / "run")["error"]["type"] == "KeyboardInterrupt"


# ---- going on in a folder


def test_a_finished_run_is_refused_without_resume_and_returned_with_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    first = tiny_job.run(model, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ConfigurationError, match="holds a finished run"):
        tiny_job.run(model, folder)
    monkeypatch.setattr(Pruner, "prune", None)
    capsys.readouterr()
    assert tiny_job.run(model, folder, "resume=true", "name=other") == json.loads(json.dumps(first))
    assert "geometric mean" in capsys.readouterr().out
    with pytest.raises(ConfigurationError, match="another configuration"):
        tiny_job.run(model, folder, "resume=true", "sparsity=0.6")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_resume_runs_again_for_an_export_that_is_not_there(model: Path, tmp_path: Path) -> None:
    first = tiny_job.run(model, tmp_path / "run")
    second = tiny_job.run(model, tmp_path / "run", "resume=true", "export=masks")
    assert (tmp_path / "run" / "masks.safetensors").is_file()
    assert _reproducible(first) == _reproducible(second)
    third = tiny_job.run(model, tmp_path / "run", "resume=true", "export=masks")
    assert third["run_id"] == second["run_id"]


def test_a_failed_run_can_be_repeated_in_its_folder(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of luck")

    with monkeypatch.context() as patch:
        patch.setattr(Pruner, "prune", fail)
        with pytest.raises(RuntimeError):
            tiny_job.run(model, tmp_path / "run")
    tiny_job.run(model, tmp_path / "run", "resume=true")
    results = _read(tmp_path / "run")
    assert results["status"] == "complete"
    assert "error" not in results


# ---- the other modes


@pytest.mark.parametrize("mode", ["inspect", "prepare"])
def test_the_other_modes_leave_no_folder(
    mode: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "outputs" / "date" / "run"
    assert run(tiny_job.spec(folder, tiny_job.overrides(model, f"mode={mode}"))) is None
    assert not folder.parent.exists()
    shown = capsys.readouterr().out
    expected = {
        "inspect": [
            "self_attention.query_key_value",
            "48 × 16",
            "tied to the LM head",
            "2 languages, 64 calibration tokens",
        ],
        "prepare": [f"ready: {model}, 2 languages of embedded"],
    }[mode]
    for part in expected:
        assert part in shown


def test_prepare_refuses_what_a_run_would_refuse(model: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="would fit"):
        tiny_job.run(model, tmp_path / "run", "mode=prepare", "calibration.sequences=4000")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="empty"):
        tiny_job.run(tmp_path / "empty", tmp_path / "run", "mode=prepare")


def test_inspect_needs_no_weights(tmp_path: Path) -> None:
    folder = save_tiny_model("bloom", tmp_path / "model")
    (folder / "model.safetensors").unlink()
    assert run(tiny_job.spec(tmp_path / "run", tiny_job.overrides(folder, "mode=inspect"))) is None


# ---- the command


def test_the_command_leaves_an_offline_wandb_run_inside_its_folder_only(model: Path, tmp_path: Path) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "HF_", "XDG"))}
    environment |= {"HOME": str(home), "HF_HUB_OFFLINE": "1", "HF_TOKEN": "hf_verysecrettoken"}
    arguments = [each for each in tiny_job.overrides(model) if each != "tracking=none"]
    command = [sys.executable, str(ROOT / "run.py"), *arguments, "tracking=wandb", "tracking.mode=offline", "name=tiny"]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (folder,) = (work / "outputs").glob("*/*_tiny")
    assert left_in(folder) == {*FILES, "wandb"}
    assert _read(folder)["status"] == "complete"
    assert list((folder / "wandb").glob("offline-run-*/run-*.wandb"))
    assert [path.parent for path in tmp_path.rglob("*.wandb") if folder not in path.parents] == []
    assert [path.name for path in work.iterdir()] == ["outputs"]
    assert "geometric mean" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    for path in folder.rglob("*"):
        assert path.is_dir() or b"hf_verysecrettoken" not in path.read_bytes(), path


# ---- languages: sets, and which of them calibrate


def test_the_record_and_the_hash_say_what_a_set_came_to(model: Path, tmp_path: Path) -> None:
    rule = ["langs.codes=[]", "langs.families=[Bantu]", "langs.available=true"]
    by_rule = tiny_job.run(model, tmp_path / "rule", *rule)
    by_code = tiny_job.run(model, tmp_path / "code", "langs.codes=[swh_Latn]")
    drawn = tiny_job.run(model, tmp_path / "drawn", "langs.sample=1")
    config = yaml.safe_load((tmp_path / "rule" / "config.yaml").read_text(encoding="utf-8"))
    assert by_rule["languages"]["codes"] == ["swh_Latn"] == config["langs"]["codes"]
    assert by_rule["config_hash"] == by_code["config_hash"]
    assert len(drawn["languages"]["codes"]) == 1
    assert drawn["languages"]["codes"] == list(drawn["perplexity"]["pruned"])


def test_languages_may_be_evaluated_that_give_no_calibration_text(model: Path, tmp_path: Path) -> None:
    unseen = tiny_job.run(model, tmp_path / "unseen", "calibration.languages=[swh_Latn]")
    assert unseen["calibration"]["tokens_per_language"] == {"swh_Latn": 4 * 16}
    assert set(unseen["perplexity"]["pruned"]) == set(tiny_job.LANGUAGES)
    assert unseen["languages"]["codes"] == list(tiny_job.LANGUAGES)
    assert "1 of them give no calibration text" in (tmp_path / "unseen" / "run.log").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("overrides", "codes"),
    [
        (["calibration.sampling=english"], ["eng_Latn"]),
        (["calibration.sampling=target", "calibration.target=[tam_Taml]"], ["tam_Taml"]),
        (["calibration.sampling=proportional", "calibration.mix=bloom"], ["eng_Latn", "swh_Latn"]),
        (["calibration.sequences=30", "calibration.languages=flores30"], embedded.codes()),
        (["calibration.sequences=null", "calibration.tokens=70"], ["eng_Latn", "swh_Latn"]),
        (["calibration.sequences=null", "calibration.bytes=200"], ["eng_Latn", "swh_Latn"]),
    ],
    ids=["english", "target", "mix", "set", "tokens", "bytes"],
)
def test_every_way_to_calibrate_goes_through_the_whole_job(
    model: Path, tmp_path: Path, overrides: list[str], codes: list[str]
) -> None:
    results = tiny_job.run(model, tmp_path / "run", *overrides)
    assert results["status"] == "complete"
    assert list(results["calibration"]["tokens_per_language"]) == codes
    assert set(results["perplexity"]["pruned"]) == set(tiny_job.LANGUAGES)
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8"))
    assert config["calibration"]["languages"] in (None, codes)


def test_languages_that_the_corpus_lacks_are_refused_at_once_or_left_out(model: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError) as caught:
        tiny_job.run(model, tmp_path / "run", "langs.include=[ace_Latn,yor_Latn,zul_Latn]")
    assert str(caught.value).startswith(
        "corpus=embedded has no text in 3 of 5 languages (ace_Latn, yor_Latn, zul_Latn)"
    )
    assert "langs.available=true" in str(caught.value)
    assert not (tmp_path / "run").exists()
    left = tiny_job.run(model, tmp_path / "run", "langs.include=[ace_Latn,yor_Latn]", "langs.available=true")
    assert left["languages"]["codes"] == list(tiny_job.LANGUAGES)
