"""The model in memory as lm-eval sees it."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from mwanda.errors import ModelError
from mwanda.evaluation import suites
from mwanda.evaluation.head import Scorer
from mwanda.system.progress import Progress, Silent


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


LOGITS_AT_ONCE = 2**27
"""Logits of a batch: 512 MiB in float32, of which lm-eval holds two copies."""


LEAST = -1e300
"""The log-likelihood of an answer that is impossible: lm-eval takes differences, of which infinity has none."""


def language_model(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", batch_size: int, progress: Progress, title: str
) -> Any:
    """Return the model in memory as lm-eval sees it."""
    from lm_eval.models.huggingface import HFLM

    scorer = Scorer(model)
    likelihoods: list[float] = []

    class Bounded(HFLM):
        """The model as lm-eval sees it, in batches that fit into memory however large the vocabulary is.

        lm-eval computes all logits of question and answer, which most of the time is spent on where the vocabulary
        is large. Where answers are only compared (`only_compared`), the losses of their tokens are enough.
        """

        only_compared = False
        gives_numbers = scorer.gives_numbers

        def taken_likelihoods(self) -> list[float]:
            """Return the log-likelihoods of all answers since this was last asked."""
            taken = likelihoods[:]
            likelihoods.clear()
            return taken

        def _loglikelihood_tokens(self, requests: Any, *arguments: Any, **named: Any) -> Any:
            found = self._found(requests, *arguments, **named)
            likelihoods.extend(float(each[0]) for each in found)
            return [(max(float(each[0]), LEAST), *each[1:]) for each in found]

        def _model_call(self, *arguments: Any, **named: Any) -> torch.Tensor:
            """Return logits; infinite ones are as large as can be, as one of them would leave no number among all."""
            logits: torch.Tensor = super()._model_call(*arguments, **named)
            most = torch.finfo(logits.dtype).max
            return logits.clamp_(-most, most)  # always: to ask whether there are any would wait for the device

        def _found(self, requests: Any, *arguments: Any, **named: Any) -> Any:
            longest = max((len(context) + len(end) for _, context, end in requests), default=1)
            if any(len(end) > self.max_length for _, _, end in requests):
                raise ModelError(f"{suites.KEY}: an answer has more tokens than the model's context, {self.max_length}")
            # lm-eval itself feeds a question once for all its answers of one token.
            shared = len({(*context, *end[:-1]) for _, context, end in requests}) < len(requests)
            if self.only_compared and scorer.fast and not shared and longest <= self.max_length:
                with scorer.faster_norms():
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
                losses = scorer.score(torch.tensor(padded), ends, list(map(len, rows)))
                for at, loss in zip(batch, losses, strict=True):
                    found[at] = (-float(loss.sum()), False)
            return found

    return Bounded(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)


def only_compares(leaf: Any) -> bool:
    """Say whether a task asks which answer is likeliest, not whether one is the greedy continuation."""
    config = leaf.config
    return (
        config.output_type == "multiple_choice"
        and config.process_results is None
        and "exact_match" not in leaf.aggregation()
    )


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
def quiet(progress: Progress | None = None, title: str = "") -> Iterator[None]:
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
        with replaced(model, "tqdm", silent), replaced(task, "tqdm", silent), replaced(huggingface, "tqdm", shown):
            yield
    finally:
        speaker.setLevel(level)
        if bars:
            datasets.enable_progress_bars()


@contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute for as long as the context lasts."""
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)
