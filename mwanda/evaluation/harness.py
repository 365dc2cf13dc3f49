"""Task scores by lm-eval, on the model in memory, dense and pruned, with paired differences."""

import copy
import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt

from mwanda import hub
from mwanda.corpora import Corpus, Split
from mwanda.corpora.flores_plus import FloresPlus
from mwanda.distributed import World
from mwanda.errors import ConfigurationError, CorpusError, ModelError
from mwanda.evaluation import suites
from mwanda.evaluation.head import Scorer
from mwanda.evaluation.perplexity import Perplexity
from mwanda.evaluation.suites import Chosen
from mwanda.evaluation.tasks import documents
from mwanda.hub import HubError, UnreachableError
from mwanda.languages import Language, find
from mwanda.progress import Progress, Silent


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


LOGITS_AT_ONCE = 2**27
"""Logits of a batch: 512 MiB in float32, of which lm-eval holds two copies."""

RESAMPLES = 100
"""Of the bootstrap for metrics that are no mean over documents, such as BLEU; lm-eval takes as many."""

FLORES = "facebook/flores"
FLORES_COLUMN = re.compile(r"sentence_(\w{3}_\w{4})")
FLORES_SPLITS: dict[str, Split] = {"dev": "calibration", "devtest": "evaluation"}

Values = dict[tuple[str, int], Any]
"""A metric's value for each document, by task and number."""

logger = logging.getLogger(__name__)


@dataclass
class Task:
    """A task with its data, ready to be run; a group that is a mean over all its documents counts as one task."""

    chosen: Chosen
    name: str
    leaves: dict[str, Any]

    def aggregation(self, metric: str) -> Callable[[Sequence[Any]], float] | None:
        """Return how a metric is computed from its documents' values; None for the mean."""
        from lm_eval.api.metrics import mean

        function = next(iter(self.leaves.values())).aggregation().get(metric.partition(",")[0], mean)
        return None if function is mean else function


@dataclass
class Scores:
    """What one model did: for each task and metric the value of every document."""

    values: dict[str, dict[str, Values]] = field(default_factory=dict)

    def as_rows(self) -> list[Any]:
        """Return a row for each value, as JSON can hold it: a metric's values may be texts or pairs."""
        return [
            [task, metric, leaf, document, _encoded(value)]
            for task, metrics in self.values.items()
            for metric, values in metrics.items()
            for (leaf, document), value in values.items()
        ]

    @classmethod
    def of_rows(cls, rows: Iterable[Sequence[Any]]) -> "Scores":
        """Undo `as_rows`."""
        scores = cls()
        for task, metric, leaf, document, value in rows:
            scores.values.setdefault(task, {}).setdefault(metric, {})[leaf, document] = _decoded(value)
        return scores


@dataclass(frozen=True)
class Harness:
    """Tasks of lm-eval, and offline tasks of our own over the evaluation corpus, for the languages of the run.

    Args:
        tasks: suites (see `suites.yaml`) and names of single tasks.
        few_shot: examples before each question; None for each task's own number, which is mostly zero.
        limit: documents of a task that are taken, the first ones; None for all.
        batch_size: requests in a forward pass, fewer where the vocabulary is large; changes speed and memory only.
        pivot: the language that `parallel_match` translates from.

    Raises:
        ConfigurationError: no task is named, or the pivot is no language.
    """

    tasks: tuple[str, ...] = suites.OFFLINE
    few_shot: Annotated[int, Ge(0)] | None = None
    limit: Annotated[int, Gt(0)] | None = None
    batch_size: Annotated[int, Gt(0)] = 8
    pivot: str = "eng_Latn"

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ConfigurationError(suites.KEY, "[]", "names no task", suites.suites())
        try:
            find([self.pivot])
        except ConfigurationError as error:
            raise ConfigurationError("evaluation.pivot", self.pivot, "is not a FLORES+ code", error.choices) from None

    @property
    def reads_corpus(self) -> bool:
        """Whether a task asks about the sentences of the evaluation corpus."""
        return any(name.startswith(suites.OFFLINE) for name in self.tasks)

    def choose(self, languages: Sequence[Language]) -> list[Chosen]:
        """Return the tasks for these languages; needs neither lm-eval nor a network.

        Raises:
            ConfigurationError: there is no such task, or a suite has none of the languages.
        """
        return suites.choose(self.tasks, languages, self.pivot)

    def load(self, languages: Sequence[Language], corpus: Corpus, seed: int) -> list[Task]:
        """Load the data of every task, from the corpus, the hub or what was kept of it.

        Raises:
            CorpusError: a task's data cannot be had.
            ConfigurationError: a task cannot be run here.
        """
        chosen = self.choose(languages)
        with _quiet():
            tasks = [_offline_task(each, corpus, self.pivot, seed) for each in chosen if each.folder is None]
            tasks += _tasks_of_lm_eval([each for each in chosen if each.folder is not None], corpus)
        for task in tasks:
            for name, leaf in task.leaves.items():
                if getattr(leaf, "UNSAFE_CODE", False) or getattr(leaf, "MULTIMODAL", False):
                    raise ConfigurationError(suites.KEY, name, "runs generated code or needs more than text")
                self._set_few_shot(leaf)
        return tasks

    def score(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        tasks: Sequence[Task],
        progress: Progress | None = None,
        title: str = "evaluate",
        seed: int = 0,
        world: World | None = None,
    ) -> Scores:
        """Return what `model` does in each document of each task; the processes of `world` take every N-th task."""
        from lm_eval.evaluator import evaluate

        world, scores = world or World(), Scores()
        with _quiet(progress, title):
            # lm-eval sets a padding token, which an exported tokenizer must not have.
            language_model = _language_model(
                model, copy.deepcopy(tokenizer), self.batch_size, progress or Silent(), title
            )
            for task in world.shard(tasks):
                for leaf in task.leaves.values():
                    leaf.set_fewshot_seed(seed=seed)  # the dense and the pruned model see the same examples
                language_model.only_compared = all(map(_only_compares, task.leaves.values()))
                found = evaluate(
                    language_model, {"tasks": task.leaves}, self.limit, bootstrap_iters=0, log_samples=True
                )
                scores.values[task.name] = _values(found["samples"])
        if world.size == 1:
            return scores
        every = world.all_gather(json.dumps(scores.as_rows()))
        return Scores.of_rows(row for text in every for row in json.loads(text))

    def as_record(self, tasks: Sequence[Task], scores: Mapping[str, Scores], seed: int = 0) -> dict[str, Any]:
        """Return what results.json holds: metrics with standard errors, and pruned minus dense, paired."""
        record: dict[str, Any] = {which: {} for which in scores}
        for task in tasks:
            for which, one in scores.items():
                record[which][task.name] = _entries(task, [one.values[task.name]], seed)
        if {"dense", "pruned"} <= scores.keys():
            record["difference"] = {
                task.name: _entries(task, [scores[which].values[task.name] for which in ("pruned", "dense")], seed)
                for task in tasks
            }
        record["about"] = {task.name: _about(task, scores) for task in tasks}
        return record

    def _set_few_shot(self, leaf: Any) -> None:
        """Set the number of examples as lm-eval does: a task that says zero has its examples in the prompt."""
        own = leaf.get_config("num_fewshot")
        if own is None or (self.few_shot is not None and own != 0):
            leaf.set_config(key="num_fewshot", value=self.few_shot or 0)


@dataclass(frozen=True)
class Full(Perplexity, Harness):
    """Perplexity and tasks."""

    def __post_init__(self) -> None:
        Perplexity.__post_init__(self)
        Harness.__post_init__(self)


def _about(task: Task, scores: Mapping[str, Scores]) -> dict[str, Any]:
    leaf = next(iter(task.leaves.values()))
    measured = next(iter(scores.values())).values[task.name]
    return {
        "suite": task.chosen.suite,
        "language": task.chosen.language.code if task.chosen.language else None,
        "documents": max((len(values) for values in measured.values()), default=0),
        "few_shot": leaf.get_config("num_fewshot"),
        "version": str(leaf.VERSION),
        "chance": 1 / documents.CHOICES if task.chosen.folder is None else None,
    }


def _entries(task: Task, models: Sequence[Mapping[str, Values]], seed: int) -> dict[str, float | None]:
    """Return every metric and its standard error, of one model or of the first minus the second."""
    entries: dict[str, float | None] = {}
    for metric in models[0]:
        both = [key for key in models[0][metric] if all(key in model.get(metric, {}) for model in models)]
        columns = [[model[metric][key] for key in both] for model in models]
        name, comma, filtered = metric.partition(",")
        found = _estimate(columns, task.aggregation(metric), seed)
        value, error = (None if math.isnan(number) else number for number in found)
        entries |= {metric: value, f"{name}_stderr{comma}{filtered}": error}
    return entries


def _estimate(
    columns: Sequence[Sequence[Any]], aggregation: Callable[[Sequence[Any]], float] | None, seed: int
) -> tuple[float, float]:
    count = len(columns[0])
    if aggregation is None:
        values = np.array(columns[0], dtype=float)
        if len(columns) == 2:
            values = values - np.array(columns[1], dtype=float)
        error = float(values.std(ddof=1)) / math.sqrt(count) if count > 1 else math.nan
        return float(values.mean()), error

    def value(chosen: Any) -> float:
        first, *second = [float(aggregation([column[at] for at in chosen])) for column in columns]
        return first - sum(second)

    generator = np.random.default_rng(seed)
    resampled = [value(generator.integers(count, size=count)) for _ in range(RESAMPLES)] if count > 1 else []
    return value(range(count)), float(np.std(resampled, ddof=1)) if resampled else math.nan


def _values(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Values]:
    values: dict[str, Values] = {}
    for task, rows in samples.items():
        for row in rows:
            for metric in row["metrics"]:
                name = metric if row["filter"] == "none" else f"{metric},{row['filter']}"
                values.setdefault(name, {})[task, row["doc_id"]] = row[metric]
    return values


def _encoded(value: Any) -> Any:
    """Return a value as JSON can hold it, tuples told from lists."""
    if isinstance(value, tuple):
        return {"tuple": [_encoded(each) for each in value]}
    if isinstance(value, list):
        return [_encoded(each) for each in value]
    if hasattr(value, "item"):  # a number of NumPy
        return value.item()
    return value


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(_decoded(each) for each in value["tuple"])
    return [_decoded(each) for each in value] if isinstance(value, list) else value


def _language_model(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", batch_size: int, progress: Progress, title: str
) -> Any:
    from lm_eval.models.huggingface import HFLM

    scorer = Scorer(model)

    class Bounded(HFLM):
        """The model as lm-eval sees it, in batches that fit into memory however large the vocabulary is.

        lm-eval computes all logits of question and answer, which most of the time is spent on where the vocabulary
        is large. Where answers are only compared (`only_compared`), the losses of their tokens are enough.
        """

        only_compared = False

        def _loglikelihood_tokens(self, requests: Any, *arguments: Any, **named: Any) -> Any:
            longest = max((len(context) + len(end) for _, context, end in requests), default=1)
            if any(len(end) > self.max_length for _, _, end in requests):
                raise ModelError(f"{suites.KEY}: an answer has more tokens than the model's context, {self.max_length}")
            # lm-eval itself feeds a question once for all its answers of one token.
            shared = len({(*context, *end[:-1]) for _, context, end in requests}) < len(requests)
            if self.only_compared and scorer.fast and not shared and longest <= self.max_length:
                return self._compared(requests)
            vocabulary = model.get_output_embeddings().weight.shape[0]
            self.batch_size_per_gpu = max(1, min(batch_size, LOGITS_AT_ONCE // (longest * vocabulary)))
            try:
                return super()._loglikelihood_tokens(requests, *arguments, **named)
            finally:
                self.batch_size_per_gpu = batch_size

        def _compared(self, requests: Sequence[tuple[Any, list[int], list[int]]]) -> list[tuple[float, bool]]:
            order = sorted(range(len(requests)), key=lambda at: -len(requests[at][1] + requests[at][2]))
            batches = [order[begin : begin + batch_size] for begin in range(0, len(order), batch_size)]
            found = [(0.0, False)] * len(requests)
            for batch in progress.track(batches, title, unit="requests", weight=len):
                rows = [requests[at][1] + requests[at][2] for at in batch]
                padded = [row + row[-1:] * (len(rows[0]) - len(row)) for row in rows]
                ends = [len(requests[at][2]) for at in batch]
                losses = scorer.score(torch.tensor(padded, device=self.device), ends, list(map(len, rows)))
                for at, loss in zip(batch, losses, strict=True):
                    found[at] = (-float(loss.sum()), False)
            return found

    return Bounded(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)


def _only_compares(leaf: Any) -> bool:
    """Say whether a task asks which answer is likeliest, not whether one is the greedy continuation."""
    config = leaf.config
    return (
        config.output_type == "multiple_choice"
        and config.process_results is None
        and "exact_match" not in leaf.aggregation()
    )


# ---- loading


def _offline_task(chosen: Chosen, corpus: Corpus, pivot: str, seed: int) -> Task:
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    assert chosen.language is not None
    definition = files("mwanda.evaluation.tasks") / f"{chosen.suite}.yaml"
    rows = _documents(chosen.suite, chosen.language, corpus, pivot, seed)
    if not rows:
        raise CorpusError(
            f"{chosen.name}: {corpus.name} has too few sentences; "
            f"{documents.CHOICES} different ones are needed (evaluation.corpus=…)"
        )
    data = {"evaluation": Dataset.from_list(rows)}
    config = {**load_yaml(str(definition)), "task": chosen.name, "custom_dataset": lambda **_: data}
    return Task(chosen, chosen.name, {chosen.name: ConfigurableTask(config=config)})


def _documents(suite: str, language: Language, corpus: Corpus, pivot: str, seed: int) -> list[documents.Document]:
    sentences = list(corpus.sentences(language, "evaluation"))
    if suite == "parallel_cloze":
        return documents.cloze(sentences, seed)
    (source,) = find([pivot])
    sources = list(corpus.sentences(source, "evaluation"))
    if not getattr(corpus, "parallel", True) or len(sources) != len(sentences):
        raise CorpusError(
            f"parallel_match_{language.code}: {corpus.name} is not parallel: it has {len(sources)} sentences in "
            f"{pivot} and {len(sentences)} in {language.code}; choose another by evaluation.corpus=…, or parallel_cloze"
        )
    return documents.match(sources, sentences, source.name, language.name, seed)


def _tasks_of_lm_eval(chosen: Sequence[Chosen], corpus: Corpus) -> list[Task]:
    if not chosen:
        return []
    from lm_eval.tasks import TaskManager

    folders = dict.fromkeys(str(suites.task_root() / str(each.folder)) for each in chosen)
    manager = TaskManager(include_path=list(folders), include_defaults=False)
    asked: dict[str, HubError | None] = {}
    return [task for each in chosen for task in _load(each, manager, corpus, asked)]


def _load(chosen: Chosen, manager: Any, corpus: Corpus, asked: dict[str, HubError | None]) -> list[Task]:
    """Build a task, which loads its data.

    Raises:
        CorpusError: the data cannot be had.
    """
    leaves = _leaves(manager.task_index, chosen.name)
    sources = dict.fromkeys(str(config["dataset_path"]) for config in leaves.values() if "dataset_path" in config)
    specification = _over_flores_plus(chosen, leaves, corpus) if FLORES in sources else chosen.name
    unreachable = None
    for source in sources:
        if source not in asked:
            asked[source] = _ask(source)
        problem = asked[source]
        if problem is not None and not isinstance(problem, UnreachableError):
            raise CorpusError(f"task {chosen.name}: its data ({source}) cannot be had: {problem}")
        unreachable = problem or unreachable
    try:
        with _hub_off() if unreachable else nullcontext():
            loaded = manager.load([specification])
    except CorpusError:
        raise
    except Exception as error:
        # datasets and lm-eval raise unrelated types for the same few causes.
        first_line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        reason = str(unreachable) if unreachable else f"{type(error).__name__}: {first_line[:160]}"
        raise CorpusError(
            f"task {chosen.name}: its data ({', '.join(sources) or 'unnamed'}) cannot be had: {reason}; "
            f"tasks that need no hub: {', '.join(suites.OFFLINE)}"
        ) from error
    group = loaded["groups"].get(chosen.name)
    if group is not None and _is_mean(group):
        return [Task(chosen, chosen.name, loaded["tasks"])]
    return [Task(chosen, name, {name: leaf}) for name, leaf in loaded["tasks"].items()]


def _leaves(index: Mapping[str, Any], name: str) -> dict[str, Mapping[str, Any]]:
    """Return the definitions of the single tasks that a task, group or tag stands for."""
    entry = index.get(name)
    if entry is None:
        return {}
    members = sorted(entry.tags) if entry.cfg is None else entry.cfg.get("task")
    if not isinstance(members, list):
        return {name: entry.cfg}
    names = [each if isinstance(each, str) else str(each.get("task")) for each in members]
    return {leaf: config for each in names for leaf, config in _leaves(index, each).items()}


def _is_mean(group: Any) -> bool:
    """Say whether a group's metrics are means over all documents of its tasks."""
    rules = group.aggregate_metric_list or []
    return bool(rules) and all(rule.weight_by_size and rule.aggregation == "mean" for rule in rules)


def _ask(source: str) -> HubError | None:
    """Return why the hub does not serve a data set; None where it does, or where none has to be asked."""
    from huggingface_hub.errors import EntryNotFoundError

    if source == FLORES or "/" not in source or Path(source).is_dir():
        return None
    try:
        hub.find("dataset", source, None, "README.md")
    except HubError as problem:
        return None if isinstance(problem.__cause__, EntryNotFoundError) else problem
    return None


def _over_flores_plus(chosen: Chosen, leaves: Mapping[str, Mapping[str, Any]], corpus: Corpus) -> dict[str, Any]:
    """Return lm-eval's translation tasks over FLORES+, as their own data is a script that is no longer run.

    Raises:
        CorpusError: the evaluation corpus is another one.
    """
    if not isinstance(corpus, FloresPlus):
        raise CorpusError(f"{suites.KEY}={chosen.suite}: its text is FLORES+; add evaluation.corpus=flores_plus")
    members = []
    for name, config in leaves.items():
        columns = dict.fromkeys(FLORES_COLUMN.findall(f"{config['doc_to_text']} {config['doc_to_target']}"))
        members.append({"task": name, "custom_dataset": partial(_flores_plus, corpus, tuple(columns))})
    return {"group": f"{chosen.name} over FLORES+", "task": members}


def _flores_plus(corpus: FloresPlus, columns: Sequence[str], **_: Any) -> dict[str, Any]:
    from datasets import Dataset

    codes = suites.words("flores_translation")
    languages = find([codes.get(column, column) for column in columns])
    parts: dict[str, Any] = {}
    for name, split in FLORES_SPLITS.items():
        texts = [list(corpus.sentences(language, split)) for language in languages]
        rows = [
            dict(zip((f"sentence_{column}" for column in columns), row, strict=True))
            for row in zip(*texts, strict=True)
        ]
        parts[name] = Dataset.from_list(rows)
    return parts


# ---- what lm-eval prints


class _Bar:
    """Stands where lm-eval has a bar of tqdm, and shows the requests by our own progress."""

    def __init__(self, progress: Progress, title: str, items: Any = None, total: int | None = None, **_: Any):
        self._items = items
        self._steps = iter(progress.track(range(total or 0), title, unit="requests"))
        next(self._steps, None)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def update(self, count: int = 1) -> None:
        """Note that `count` more requests are done."""
        for _ in range(count):
            next(self._steps, None)

    def close(self) -> None:
        """Take the bar away."""
        for _ in self._steps:
            pass


@contextmanager
def _quiet(progress: Progress | None = None, title: str = "") -> Iterator[None]:
    """Keep lm-eval and datasets from writing to the terminal."""
    import datasets
    from lm_eval.api import model, task
    from lm_eval.models import huggingface

    speaker, bars = logging.getLogger("lm_eval"), not datasets.are_progress_bars_disabled()
    level = speaker.level
    speaker.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    silent, shown = partial(_Bar, Silent(), ""), partial(_Bar, progress or Silent(), title)
    try:
        with _replaced(model, "tqdm", silent), _replaced(task, "tqdm", silent), _replaced(huggingface, "tqdm", shown):
            yield
    finally:
        speaker.setLevel(level)
        if bars:
            datasets.enable_progress_bars()


@contextmanager
def _hub_off() -> Iterator[None]:
    """Take what was fetched before, and wait for nothing."""
    import datasets.config
    from huggingface_hub import constants

    with _replaced(datasets.config, "HF_HUB_OFFLINE", True), _replaced(constants, "HF_HUB_OFFLINE", True):
        yield


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)
