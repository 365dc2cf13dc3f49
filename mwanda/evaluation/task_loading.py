"""Loads tasks: those of lm-eval, and those that this project makes of a parallel corpus."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from mwanda.corpora import Corpus, Split
from mwanda.corpora.flores_plus import FloresPlus
from mwanda.errors import CorpusError
from mwanda.evaluation import suites
from mwanda.evaluation.lm_eval_adapter import replaced
from mwanda.evaluation.suites import Chosen
from mwanda.evaluation.task_scores import Task
from mwanda.evaluation.tasks import documents
from mwanda.languages import Language, find
from mwanda.system import hub
from mwanda.system.hub import HubError, UnreachableError


FLORES = "facebook/flores"

FLORES_COLUMN = re.compile(r"sentence_(\w{3}_\w{4})")

FLORES_SPLITS: dict[str, Split] = {"dev": "calibration", "devtest": "evaluation"}


def offline_task(chosen: Chosen, corpus: Corpus, pivot: str, seed: int) -> Task:
    """Return a task that this project makes of a parallel corpus."""
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


def tasks_of_lm_eval(chosen: Sequence[Chosen], corpus: Corpus) -> list[Task]:
    """Return tasks of lm-eval with their data."""
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


@contextmanager
def _hub_off() -> Iterator[None]:
    """Take what was fetched before, and wait for nothing."""
    import datasets.config
    from huggingface_hub import constants

    with replaced(datasets.config, "HF_HUB_OFFLINE", True), replaced(constants, "HF_HUB_OFFLINE", True):
        yield
