"""Tasks through lm-eval on the model in memory: its numbers, paired differences, and what they leave alone."""

import io
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import stdev
from typing import Any, TypeVar

import pyarrow
import pyarrow.parquet
import pytest
import tiny_job
import torch
from hub_server import Client, HubServer
from rich.console import Console
from tiny_models import save_tiny_model, tiny_model, tiny_tokenizer
from transformers import PreTrainedModel

from mwanda.corpora.c4 import C4
from mwanda.corpora.embedded import Embedded
from mwanda.corpora.flores_plus import FloresPlus
from mwanda.corpora.local import Local
from mwanda.errors import ConfigurationError, CorpusError, EvaluationError, ModelError
from mwanda.evaluation.finite import Which
from mwanda.evaluation.harness import Harness
from mwanda.evaluation.perplexity import Perplexity
from mwanda.evaluation.task_scores import Scores, Task
from mwanda.job.run import run as run_spec
from mwanda.job.summary import summary
from mwanda.languages import find
from mwanda.models.source import PretrainedModel
from mwanda.tracking.summary import single_values


T = TypeVar("T")
LANGUAGES = find(["eng_Latn", "swh_Latn"])
CLOZE = Harness(tasks=("parallel_cloze",), limit=6)
NAMES = ["parallel_cloze_eng_Latn", "parallel_cloze_swh_Latn"]


class Recorder:
    """Progress that notes what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, int]] = []

    def track(self, items: Sequence[T], title: str, unit: str, weight: Callable[[T], int] = lambda _: 1) -> Iterable[T]:
        """Yield `items`."""
        self.told.append((title, unit, len(items)))
        return items


@cache
def model(seed: int = 0) -> PreTrainedModel:
    return tiny_model("llama", seed, max_position_embeddings=1024)


@cache
def cloze_tasks() -> list[Task]:
    return CLOZE.load(LANGUAGES, Embedded(), 0)


@cache
def cloze_scores(seed: int = 0) -> Scores:
    return CLOZE.score(model(seed), tiny_tokenizer(), cloze_tasks())


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Take back what a job does to the loggers of this process."""
    loggers = [logging.getLogger(name) for name in ("mwanda", "transformers")]
    before = [(list(logger.handlers), logger.level) for logger in loggers]
    yield
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        logger.handlers = handlers
        logger.setLevel(level)


# ---- numbers


def test_scores_are_those_of_lm_eval_on_its_own() -> None:
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    own = CLOZE.as_record(cloze_tasks(), {"dense": cloze_scores()})["dense"]
    theirs = simple_evaluate(
        HFLM(pretrained=model(), tokenizer=tiny_tokenizer(), batch_size=1),
        tasks=[leaf for task in CLOZE.load(LANGUAGES, Embedded(), 0) for leaf in task.leaves.values()],
        task_manager=TaskManager(include_defaults=False),
        limit=6,
    )
    assert theirs is not None
    for name in NAMES:
        for metric in ("acc", "acc_norm", "acc_bytes"):
            assert own[name][metric] == theirs["results"][name][f"{metric},none"]
            assert own[name][f"{metric}_stderr"] == pytest.approx(theirs["results"][name][f"{metric}_stderr,none"])


def test_likelihoods_are_those_of_lm_eval_however_they_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the losses of the answers alone, or by lm-eval itself with one request at a time."""
    from lm_eval.models.huggingface import HFLM

    def likelihoods() -> list[float]:
        tasks = CLOZE.load(LANGUAGES, Embedded(), 0)
        CLOZE.score(model(), tiny_tokenizer(), tasks)
        leaves = [leaf for task in tasks for leaf in task.leaves.values()]
        return [instance.resps[0][0] for leaf in leaves for instance in leaf.instances]

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("all logits were computed")

    with monkeypatch.context() as patch:
        patch.setattr(HFLM, "_loglikelihood_tokens", refuse)
        fast = likelihoods()
    assert len(fast) == 48
    assert len(set(fast)) > 40
    with monkeypatch.context() as patch:
        patch.setattr("mwanda.evaluation.harness.only_compares", lambda _: False)
        patch.setattr("mwanda.evaluation.lm_eval_adapter.LOGITS_AT_ONCE", 1)
        slow = likelihoods()
    assert fast == pytest.approx(slow, rel=1e-4)


def test_answers_of_one_token_are_left_to_lm_eval_which_feeds_their_question_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lm_eval.models.huggingface import HFLM

    seen: list[int] = []
    original = HFLM._loglikelihood_tokens

    def watch(self: Any, requests: Any, *arguments: Any, **named: Any) -> Any:
        seen.append(len(requests))
        return original(self, requests, *arguments, **named)

    monkeypatch.setattr(HFLM, "_loglikelihood_tokens", watch)
    one = Harness(tasks=("parallel_cloze_eng_Latn",), limit=3)
    tasks = one.load(LANGUAGES, Embedded(), 0)
    (leaf,) = tasks[0].leaves.values()
    leaf.config.doc_to_choice = ["A", "B", "C", "D"]
    one.score(model(), tiny_tokenizer(), tasks)
    assert seen == [12]


def test_differences_are_paired_over_documents() -> None:
    record = CLOZE.as_record(cloze_tasks(), {"dense": cloze_scores(), "pruned": cloze_scores(seed=1)})
    for name in NAMES:
        first, last = (cloze_scores(seed).values[name]["acc"] for seed in (0, 1))
        assert first.keys() == last.keys() == {(name, number) for number in range(6)}
        differences = [last[key] - first[key] for key in first]
        assert record["difference"][name]["acc"] == pytest.approx(sum(differences) / 6)
        assert record["difference"][name]["acc_stderr"] == pytest.approx(stdev(differences) / math.sqrt(6))
        change = record["pruned"][name]["acc"] - record["dense"][name]["acc"]
        assert record["difference"][name]["acc"] == pytest.approx(change)
        language = name.removeprefix("parallel_cloze_")
        about = {"suite": "parallel_cloze", "language": language, "documents": 6, "few_shot": 0, "version": "1.0"}
        assert record["about"][name] == about | {"chance": 0.25}


def test_a_metric_that_is_no_mean_is_resampled_in_pairs() -> None:
    from lm_eval.api.metrics import perplexity

    class Leaf:
        VERSION = 1

        def aggregation(self) -> dict[str, Any]:
            return {"perplexity": perplexity}

        def get_config(self, key: str) -> int:
            return 0

    task = Task(cloze_tasks()[0].chosen, "lambada", {"lambada": Leaf()})
    before = {("lambada", number): -1.0 - number / 40 for number in range(40)}
    after = {key: value - 1 for key, value in before.items()}
    scores = {
        which: Scores({"lambada": {"perplexity": values}}) for which, values in (("dense", before), ("pruned", after))
    }
    record = CLOZE.as_record([task], scores)
    dense, pruned = (record[which]["lambada"]["perplexity"] for which in ("dense", "pruned"))
    assert dense == pytest.approx(math.exp(1 + 39 / 80))
    assert record["difference"]["lambada"]["perplexity"] == pytest.approx(pruned - dense)
    # One and the same sample changes both: the error of the difference is that of the dense value times (e - 1).
    expected = record["dense"]["lambada"]["perplexity_stderr"] * (math.e - 1)
    assert record["difference"]["lambada"]["perplexity_stderr"] == pytest.approx(expected)


def test_one_document_has_no_standard_error() -> None:
    one = Harness(tasks=("parallel_cloze_eng_Latn",), limit=1)
    tasks = one.load(LANGUAGES, Embedded(), 0)
    record = one.as_record(tasks, {"dense": one.score(model(), tiny_tokenizer(), tasks)})
    assert record["dense"]["parallel_cloze_eng_Latn"]["acc_stderr"] is None


@pytest.mark.parametrize("text", ["The river is high.", "Bread! Snow fell.\nΨωμί. パン。", "a"])
def test_rolling_likelihood_of_lm_eval_is_our_total_loss(text: str) -> None:
    """With one window and a start token both measure the same; our text ends in a line break."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    tokenizer = tiny_tokenizer()
    measure = Perplexity(window=512, stride=512)
    texts = measure.texts(tokenizer, {"eng_Latn": text.split("\n")})
    ours = measure.measure(model(), tokenizer, texts)["eng_Latn"]
    request = Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text + "\n",), idx=0)
    (theirs,) = HFLM(pretrained=model(), tokenizer=tokenizer).loglikelihood_rolling([request], disable_tqdm=True)
    assert -theirs == pytest.approx(math.log(ours.perplexity) * ours.tokens, rel=1e-4)


# ---- settings


def test_few_shot_examples_are_of_the_task_and_the_same_for_both_models() -> None:
    settings = Harness(tasks=("parallel_cloze_eng_Latn",), few_shot=2, limit=3)
    tasks = settings.load(LANGUAGES, Embedded(), 0)
    (leaf,) = tasks[0].leaves.values()
    asked = []
    for seed in (0, 1):
        scores = settings.score(model(seed), tiny_tokenizer(), tasks)
        asked.append([instance.args[0] for instance in leaf.instances])
    assert asked[0] == asked[1]
    assert settings.as_record(tasks, {"dense": scores})["about"]["parallel_cloze_eng_Latn"]["few_shot"] == 2
    evaluation = list(Embedded().sentences(LANGUAGES[0], "evaluation"))
    for context in asked[0]:
        *examples, question = context.split("\n\n")
        assert len(examples) == 2
        assert all(example in evaluation for example in examples)
        assert not any(example.startswith(question) for example in examples)


def test_the_tokenizer_is_left_as_it_was() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    CLOZE.score(model(), tokenizer, cloze_tasks()[:1])
    assert tokenizer.pad_token is None


@pytest.mark.parametrize(("compared", "steps"), [(False, 24), (True, 3)])
def test_lm_eval_is_quiet_and_its_progress_is_ours(
    compared: bool, steps: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from lm_eval.models import huggingface

    monkeypatch.setattr("mwanda.evaluation.harness.only_compares", lambda _: compared)
    before, recorder = huggingface.tqdm, Recorder()
    tasks = CLOZE.load(LANGUAGES, Embedded(), 0)
    CLOZE.score(model(), tiny_tokenizer(), tasks, recorder, "dense")
    assert recorder.told == [("evaluate dense", "requests", steps)] * 2
    assert huggingface.tqdm is before
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "lm_eval" not in printed.err
    assert "it/s" not in printed.err


def test_an_answer_longer_than_the_context_is_refused() -> None:
    with pytest.raises(ModelError, match="more tokens than the model's context, 32"):
        CLOZE.score(tiny_model("llama", max_position_embeddings=32), tiny_tokenizer(), cloze_tasks())


# ---- corpora


def _local(folder: Path, lines: Mapping[str, Sequence[str]]) -> Local:
    folder.mkdir()
    for code, sentences in lines.items():
        (folder / f"{code}.txt").write_text("\n".join(sentences), encoding="utf-8")
    return Local(str(folder))


def test_a_local_parallel_corpus_asks_about_its_evaluation_side_alone(tmp_path: Path) -> None:
    lines = {
        code: [f"{code} says {n} things of many, {n} of them new" for n in range(16)]
        for code in ("eng_Latn", "swh_Latn")
    }
    corpus = _local(tmp_path / "text", lines)
    cloze, match = Harness(tasks=("parallel_cloze_swh_Latn", "parallel_match")).load(LANGUAGES, corpus, 0)
    for task in (cloze, match):
        (leaf,) = task.leaves.values()
        rows = list(leaf.dataset["evaluation"])
        assert len(rows) == 8
        assert not any(f" {n} " in json.dumps(row) for row in rows for n in range(8))


def test_what_is_not_parallel_is_refused(tmp_path: Path) -> None:
    lines = {"eng_Latn": [f"one {n} two" for n in range(20)], "swh_Latn": [f"moja {n} mbili" for n in range(24)]}
    corpus = _local(tmp_path / "text", lines)
    with pytest.raises(CorpusError, match="not parallel: it has 10 sentences in eng_Latn and 12 in swh_Latn"):
        Harness(tasks=("parallel_match",)).load(LANGUAGES, corpus, 0)
    assert not C4.parallel
    few = _local(tmp_path / "few", {code: ["a b c d", "e f g h"] for code in ("eng_Latn", "swh_Latn")})
    with pytest.raises(CorpusError, match="parallel_cloze_eng_Latn: local has too few sentences"):
        CLOZE.load(LANGUAGES, few, 0)


def _flores_plus(folder: Path) -> FloresPlus:
    card = ["---", "configs:"]
    for code in ("eng_Latn", "swh_Latn"):
        card += [f"- config_name: {code}", "  data_files:"]
        for split in ("dev", "devtest"):
            card += [f"  - split: {split}", f"    path: {split}/{code}.parquet"]
            (folder / split).mkdir(parents=True, exist_ok=True)
            table = pyarrow.table({"text": [f"{code} {split} {number}" for number in range(3)]})
            pyarrow.parquet.write_table(table, folder / split / f"{code}.parquet")
    (folder / "README.md").write_text("\n".join([*card, "---", ""]), encoding="utf-8")
    return FloresPlus(str(folder))


def test_translation_takes_its_text_from_flores_plus(tmp_path: Path) -> None:
    settings = Harness(tasks=("flores_translation",), limit=2)
    tasks = settings.load(find(["swh_Latn"]), _flores_plus(tmp_path / "flores"), 0)
    into, out_of = "flores_eng_Latn-swh_Latn_prompt_1", "flores_swh_Latn-eng_Latn_prompt_1"
    assert [task.name for task in tasks] == [into, out_of]
    rows = list(tasks[0].leaves[into].test_docs())
    assert rows[1] == {"sentence_eng_Latn": "eng_Latn devtest 1", "sentence_swh_Latn": "swh_Latn devtest 1"}
    for task in tasks:
        for leaf in task.leaves.values():
            leaf.set_config(key="generation_kwargs", value={"max_gen_toks": 8}, update=True)
    scores = {
        which: settings.score(model(seed), tiny_tokenizer(), tasks) for seed, which in enumerate(("dense", "pruned"))
    }
    record = settings.as_record(tasks, scores)
    for which in ("dense", "pruned", "difference"):
        assert record[which][into].keys() == {"bleu", "bleu_stderr", "chrf", "chrf_stderr"}
    assert record["about"][into]["documents"] == 2
    with pytest.raises(CorpusError, match=r"add evaluation\.corpus=flores_plus"):
        settings.load(find(["swh_Latn"]), Embedded(), 0)


# ---- the hub


LOAD = """
import datasets
from mwanda.corpora.embedded import Embedded
from mwanda.evaluation.harness import Harness
from mwanda.languages import find


def answer(*tasks, codes=("swh_Latn",), names=()):
    made = Harness(tasks=tuple(names)).load(find(codes), Embedded(), 0)
    return {task.name: {name: len(leaf.eval_docs) for name, leaf in task.leaves.items()} for task in made}
"""


def _push(
    hub: HubServer, folder: Path, repository: str, configuration: str, splits: Mapping[str, list[dict[str, Any]]]
) -> None:
    card = ["---", "configs:", f"- config_name: {configuration}", "  data_files:"]
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        card += [f"  - split: {split}", f"    path: {split}.parquet"]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{split}.parquet")
    (folder / "README.md").write_text("\n".join([*card, "---", ""]), encoding="utf-8")
    hub.push("dataset", repository, folder)


def test_hub_tasks_are_fetched_once_and_kept_for_when_the_hub_is_off(tmp_path: Path) -> None:
    rows = [{"premise": f"p {n}", "hypothesis": f"h {n}", "label": n % 3} for n in range(5)]
    questions = [
        {
            "question": "?",
            **{f"option_{letter}": letter for letter in "abcd"},
            "answer": "A",
            "subject_category": subject,
        }
        for subject in ("Business", "Humanities", "Medical", "Other", "STEM", "Social Sciences")
        for _ in range(2)
    ]
    steps: dict[str, dict[str, Any]] = {
        "xnli": {"names": ["xnli"]},
        "group": {"names": ["global_mmlu"]},
        "unknown": {"names": ["xcopa"]},
        "single": {"names": ["parallel_cloze", "xnli_sw"]},
    }
    with HubServer() as hub:
        _push(hub, tmp_path / "xnli", "facebook/xnli", "sw", {"train": rows, "validation": rows})
        _push(hub, tmp_path / "mmlu", "CohereForAI/Global-MMLU-Lite", "sw", {"test": questions, "dev": questions})
        with Client(LOAD, hub.url, tmp_path / "home") as client:
            online = client.ask(steps)
        asked = len(hub.requests)
    with Client(LOAD, hub.url, tmp_path / "home") as client:
        offline = client.ask({**steps, "never fetched": {"names": ["xwinograd"], "codes": ["eng_Latn"]}})
    for answers in (online, offline):
        assert answers["xnli"]["xnli_sw"] == {"xnli_sw": 5}
        assert answers["single"]["xnli_sw"] == {"xnli_sw": 5}
        assert sum(answers["group"]["global_mmlu_sw"].values()) == 12
        assert len(answers["group"]["global_mmlu_sw"]) == 6
    assert asked > 0
    assert offline["xnli"]["slept"] == 0
    gone = online["unknown"]["error"]
    assert gone.startswith("task xcopa_sw: its data (cambridgeltl/xcopa) cannot be had: the hub has no such dataset")
    for name, task in (("unknown", "xcopa_sw"), ("never fetched", "xwinograd_en")):
        message = offline[name]["error"]
        assert message.startswith(f"task {task}: its data (")
        assert "cannot be reached" in message
        assert message.endswith("tasks that need no hub: parallel_cloze, parallel_match")
        assert "\n" not in message
        assert offline[name]["type"] == "CorpusError"


# ---- the job


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model("bloom", tmp_path_factory.mktemp("bloom"))


def _arguments(folder: Path, *more: str) -> list[str]:
    kept = [each for each in tiny_job.overrides(folder) if not each.startswith("evaluation.")]
    return [*kept, "evaluation.tasks=[parallel_cloze]", "evaluation.limit=4", *more]


def _run(folder: Path, run: Path, *more: str) -> dict[str, Any]:
    return run_spec(tiny_job.spec(run, _arguments(folder, *more))) or {}


@pytest.mark.parametrize("choice", ["harness", "full"])
def test_a_run_leaves_task_scores_and_shows_them(
    choice: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(folder, tmp_path / "run", f"evaluation={choice}")
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    tasks = results["tasks"]
    assert tasks.keys() == {"dense", "pruned", "difference", "about"}
    for which in ("dense", "pruned", "difference"):
        assert list(tasks[which]) == NAMES
        assert {"acc", "acc_stderr", "acc_norm", "acc_norm_stderr"} <= tasks[which][NAMES[0]].keys()
    assert bool(results["perplexity"]) == (choice == "full")
    assert results["timing"]["evaluate"] > 0
    shown = capsys.readouterr().out
    assert "parallel_cloze_swh_Latn" in shown
    assert "parallel_cloze, mean of 2" in shown
    assert ("geometric mean" in shown) == (choice == "full")
    values = single_values(results)
    assert values["tasks/pruned/parallel_cloze_swh_Latn/acc_norm"] == tasks["pruned"][NAMES[1]]["acc_norm"]
    assert "tasks/difference/parallel_cloze_swh_Latn/acc_norm_stderr" in values
    assert not any(name.startswith("tasks/about") for name in values)


def test_two_runs_give_the_same_scores(folder: Path, tmp_path: Path) -> None:
    first, second = (_run(folder, tmp_path / name, "evaluation=harness")["tasks"] for name in ("first", "second"))
    assert first == second


def test_the_evaluation_corpus_is_the_one_that_is_named(folder: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.mkdir()
    for code in tiny_job.LANGUAGES:
        lines = [f"{code} {number} is a line of its own and says {number}" for number in range(12)]
        (text / f"{code}.txt").write_text("\n".join(lines), encoding="utf-8")
    results = _run(
        folder,
        tmp_path / "run",
        "evaluation=harness",
        f"evaluation.corpus={{choice: local, path: {text}}}",
        "evaluation.limit=null",
    )
    assert results["tasks"]["about"][NAMES[0]]["documents"] == 6


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        (
            "[parallel_close]",
            "evaluation.tasks=parallel_close: is no suite and no task of lm-eval; choices: parallel_cloze",
        ),
        ("[paws-x]", "evaluation.tasks=paws-x: has none of the run's languages"),
        ("[]", "evaluation.tasks=[]: names no task"),
    ],
)
def test_a_task_that_cannot_be_run_is_refused_before_anything_is_loaded(
    tasks: str, expected: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PretrainedModel, "load", lambda _: pytest.fail("a model was loaded"))
    with pytest.raises(ConfigurationError) as caught:
        _run(
            folder,
            tmp_path / "run",
            "evaluation=harness",
            f"evaluation.tasks={tasks}",
            "langs.codes=[swh_Latn,tam_Taml]",
        )
    assert str(caught.value).startswith(expected)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_data_that_cannot_be_had_ends_the_run_before_the_model_is_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(PretrainedModel, "load", lambda _: pytest.fail("a model was loaded"))
    for mode in ("run", "prepare"):
        with pytest.raises(
            CorpusError, match=r"task xnli_sw: its data \(facebook/xnli\) cannot be had: HF_HUB_OFFLINE"
        ):
            _run(folder, tmp_path / "run", "evaluation=harness", "evaluation.tasks=[xnli_sw]", f"mode={mode}")
        assert not (tmp_path / "run").exists()


def test_the_table_of_tasks_shows_errors_and_dashes() -> None:
    def scores(value: float | None, error: float | None) -> dict[str, Any]:
        return {"acc": 0.9, "acc_stderr": 0.1, "acc_norm": value, "acc_norm_stderr": error}

    results = {
        "model": {"id": "model", "prunable_parameters": 10, "zeros_before": 0},
        "timing": {"total": 1.0},
        "sparsity": {"target": 0.5, "achieved": 0.5, "pattern": "unstructured", "per_layer": []},
        "perplexity": {},
        "tasks": {
            "dense": {"one": scores(0.5, 0.05)},
            "pruned": {"one": scores(0.25, None)},
            "difference": {"one": scores(-0.25, 0.0625)},
            "about": {
                "one": {
                    "suite": "one",
                    "language": None,
                    "documents": 9,
                    "few_shot": 0,
                    "version": "1",
                    "chance": None,
                }
            },
        },
    }
    out = io.StringIO()
    summary(results, Path("run"), [], Console(file=out, width=160))
    (row,) = [line for line in out.getvalue().splitlines() if "acc_norm" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "one", "acc_norm", "9", "0.500 ± 0.050", "0.250 ± –", "-0.250 ± 0.062",
    ]  # fmt: skip


@pytest.mark.parametrize("which", ["dense", "pruned"])
def test_a_model_whose_logits_are_no_numbers_has_no_scores(which: Which) -> None:
    broken = tiny_model("llama", max_position_embeddings=1024)
    with torch.no_grad():
        broken.model.norm.weight[0] = math.nan
    with pytest.raises(EvaluationError, match=f"the {which} model gives no numbers"):
        CLOZE.score(broken, tiny_tokenizer(), cloze_tasks(), which=which)


def test_answers_that_a_pruned_model_finds_impossible_are_told(caplog: pytest.LogCaptureFixture) -> None:
    lost = tiny_model("llama", max_position_embeddings=1024)
    with torch.no_grad():  # of a token that no text holds
        lost.lm_head.weight[tiny_tokenizer().pad_token_id, 0] = math.inf
    scores = CLOZE.score(lost, tiny_tokenizer(), cloze_tasks()[:1], which="pruned")
    assert scores.values
    assert "answers in task parallel_cloze_eng_Latn impossible" in caplog.text
    with pytest.raises(EvaluationError, match="the dense model gives minus infinity"):
        CLOZE.score(lost, tiny_tokenizer(), cloze_tasks()[:1])
