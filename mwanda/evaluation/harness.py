"""Task scores by lm-eval, on the model in memory, dense and pruned, with paired differences."""

import copy
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from annotated_types import Ge, Gt

from mwanda.corpora import Corpus
from mwanda.errors import ConfigurationError
from mwanda.evaluation import suites
from mwanda.evaluation.finite import Which, check_likelihoods, check_logits
from mwanda.evaluation.lm_eval_adapter import language_model, only_compares, quiet
from mwanda.evaluation.perplexity import Perplexity
from mwanda.evaluation.suites import Chosen
from mwanda.evaluation.task_loading import offline_task, tasks_of_lm_eval
from mwanda.evaluation.task_scores import Scores, Task, about, entries, values
from mwanda.languages import Language, find
from mwanda.system.distributed import World
from mwanda.system.progress import Progress, Silent


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


logger = logging.getLogger(__name__)


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

    def asked_about(self, languages: Sequence[Language]) -> list[Language]:
        """Return the languages whose sentences tasks ask about, which may be others than those of the run.

        Raises:
            ConfigurationError: as for `choose`.
        """
        offline = [each for each in self.choose(languages) if each.folder is None]
        pivots = find([self.pivot]) if any(each.suite == "parallel_match" for each in offline) else []
        return list(dict.fromkeys([*(each.language for each in offline if each.language), *pivots]))

    def load(self, languages: Sequence[Language], corpus: Corpus, seed: int) -> list[Task]:
        """Load the data of every task, from the corpus, the hub or what was kept of it.

        Raises:
            CorpusError: a task's data cannot be had.
            ConfigurationError: a task cannot be run here.
        """
        chosen = self.choose(languages)
        with quiet():
            tasks = [offline_task(each, corpus, self.pivot, seed) for each in chosen if each.folder is None]
            tasks += tasks_of_lm_eval([each for each in chosen if each.folder is not None], corpus)
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
        which: Which = "dense",
        seed: int = 0,
        world: World | None = None,
    ) -> Scores:
        """Return what `model` does in each document of each task; the processes of `world` take every N-th task.

        Args:
            model: to be measured.
            tokenizer: its own.
            tasks: loaded.
            progress: shows how far it has come.
            which: whether `model` is the dense or the pruned one.
            seed: of the examples that stand before a question.
            world: the processes that share the work.

        Raises:
            EvaluationError: the model gives what is no number; see `check_likelihoods`.
        """
        from lm_eval.evaluator import evaluate

        world, scores, title = world or World(), Scores(), f"evaluate {which}"
        with quiet(progress, title):
            # lm-eval sets a padding token, which an exported tokenizer must not have.
            seen_by_lm_eval = language_model(
                model, copy.deepcopy(tokenizer), self.batch_size, progress or Silent(), title
            )
            check_logits(which, are_numbers=seen_by_lm_eval.gives_numbers)
            for task in world.shard(tasks):
                for leaf in task.leaves.values():
                    leaf.set_fewshot_seed(seed=seed)  # the dense and the pruned model see the same examples
                seen_by_lm_eval.only_compared = all(map(only_compares, task.leaves.values()))
                found = evaluate(
                    seen_by_lm_eval, {"tasks": task.leaves}, self.limit, bootstrap_iters=0, log_samples=True
                )
                check_likelihoods(which, task.name, seen_by_lm_eval.taken_likelihoods())
                scores.values[task.name] = values(found["samples"])
        if world.size == 1:
            return scores
        every = world.all_gather(json.dumps(scores.as_rows()))
        return Scores.of_rows(row for text in every for row in json.loads(text))

    def as_record(self, tasks: Sequence[Task], scores: Mapping[str, Scores], seed: int = 0) -> dict[str, Any]:
        """Return what results.json holds: metrics with standard errors, and pruned minus dense, paired."""
        record: dict[str, Any] = {which: {} for which in scores}
        for task in tasks:
            for which, one in scores.items():
                record[which][task.name] = entries(task, [one.values[task.name]], seed)
        if {"dense", "pruned"} <= scores.keys():
            record["difference"] = {
                task.name: entries(task, [scores[which].values[task.name] for which in ("pruned", "dense")], seed)
                for task in tasks
            }
        record["about"] = {task.name: about(task, scores) for task in tasks}
        return record

    def _set_few_shot(self, leaf: Any) -> None:
        """Set the number of examples as lm-eval does: a task that says zero has its examples in the prompt."""
        own = leaf.get_config("num_fewshot")
        if own is None or (self.few_shot is not None and own != 0):
            leaf.set_config(key="num_fewshot", value=self.few_shot or 0)


@dataclass(frozen=True)
class Full:
    """Perplexity and tasks; a configuration holds the keys of both side by side.

    Args:
        harness: which tasks are run, and how.
        perplexity: how perplexity is measured.
    """

    harness: Harness
    perplexity: Perplexity
    keys_of_parts: ClassVar[bool] = True
