"""Perplexity and bits per byte of a model, per language."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt
from scipy.stats import bootstrap

from mwanda.calibration.packing import document_start
from mwanda.distributed import World
from mwanda.errors import ConfigurationError, CorpusError
from mwanda.evaluation.head import Scorer
from mwanda.evaluation.protocol import Protocol, Window, windows
from mwanda.models import blocks_of
from mwanda.models.streaming import fetched_on_call
from mwanda.models.weights import Resident, Weights
from mwanda.progress import Progress, Silent
from mwanda.pruner.walk import run_by_block


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


Windows = Sequence[tuple[str, Window]]
TOKENS_PER_READING = 1 << 16
"""Scored tokens that pass a block together when blocks are read from disk: their hidden states are in memory."""


@dataclass(frozen=True)
class LanguagePerplexity:
    """What was measured for one language.

    Args:
        perplexity: `exp` of the mean loss over all scored tokens.
        bits_per_byte: loss in bits over the UTF-8 bytes of the text, comparable across tokenizers and languages.
        tokens: scored tokens.
        bytes: UTF-8 bytes of the text they stand for.
        low: lower end of the 95 % bootstrap interval of the perplexity over sentences.
        high: its upper end.
    """

    perplexity: float
    bits_per_byte: float
    tokens: int
    bytes: int
    low: float
    high: float


@dataclass(frozen=True)
class Text:
    """A language's evaluation text as tokens, with the sentence that each token belongs to."""

    tokens: tuple[int, ...]
    owners: tuple[int, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Perplexity:
    """Perplexity of the evaluation split, sentences of a language joined to one document.

    Args:
        window, stride, start_token, sentences: see Protocol.
        batch_tokens: tokens in a forward pass; changes speed and memory, not the result.
        resamples: of the bootstrap.

    Raises:
        ConfigurationError: the stride is longer than the window.
    """

    window: Annotated[int, Gt(0)] = 512
    stride: Annotated[int, Gt(0)] = 512
    start_token: bool = True
    sentences: Annotated[int, Gt(0)] | None = None
    batch_tokens: Annotated[int, Gt(0)] = 1024
    resamples: Annotated[int, Ge(100)] = 1000

    def __post_init__(self) -> None:
        if self.stride > self.window:
            raise ConfigurationError("evaluation.stride", self.stride, f"exceeds evaluation.window={self.window}")

    @property
    def protocol(self) -> Protocol:
        """The protocol of these settings."""
        return Protocol(self.window, self.stride, self.start_token, sentences=self.sentences)

    def texts(self, tokenizer: "PreTrainedTokenizerBase", sentences: Mapping[str, Sequence[str]]) -> dict[str, Text]:
        """Tokenise each language's sentences once, for the dense and the pruned model.

        Raises:
            CorpusError: a language has no evaluation text.
        """
        return {code: self._text(tokenizer, code, part) for code, part in sentences.items()}

    def measure(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        texts: Mapping[str, Text],
        progress: Progress | None = None,
        title: str = "evaluate",
        seed: int = 0,
        weights: Weights | None = None,
        world: World | None = None,
    ) -> dict[str, LanguagePerplexity]:
        """Return the perplexity of `model` in each language.

        Args:
            model: to be measured.
            tokenizer: that made `texts`.
            texts: what is scored.
            progress: shows how far it has come.
            title: of the progress.
            seed: of the bootstrap.
            weights: where blocks are kept; None when the whole model is in memory.
            world: the processes that share the work.
        """
        world = world or World()
        start = document_start(tokenizer) if self.start_token else None
        cut = [
            (code, window)
            for code, text in texts.items()
            for window in windows(text.tokens, self.window, self.stride, start)
        ]
        loss = {code: np.zeros(len(text.sizes)) for code, text in texts.items()}
        counts = {code: np.zeros(len(text.sizes), dtype=np.int64) for code, text in texts.items()}
        batches = world.share(_by_length(cut, self.batch_tokens))
        shown = (progress or Silent()).track(batches, title, unit="tokens", weight=_scored)
        for batch, scored in _losses(model, shown, weights or Resident()):
            for (code, window), values in zip(batch, scored, strict=True):
                owners = np.array(texts[code].owners[window.first : window.first + window.scored])
                np.add.at(loss[code], owners, values.double().cpu().numpy())
                np.add.at(counts[code], owners, 1)
        for part in (*loss.values(), *counts.values()):
            world.total(torch.from_numpy(part))
        return {
            code: _summarise(loss[code], counts[code], sum(text.sizes), self.resamples, seed)
            for code, text in texts.items()
        }

    def _text(self, tokenizer: "PreTrainedTokenizerBase", code: str, sentences: Sequence[str]) -> Text:
        chosen = sentences[: self.sentences] if self.sentences else sentences
        if not chosen:
            raise CorpusError(f"{code} has no evaluation text; choose another corpus by evaluation.corpus=…")
        join = self.protocol.join
        pieces = [sentence + join for sentence in chosen]
        encoded = [tokenizer.encode(piece, add_special_tokens=False) for piece in pieces]
        return Text(
            tokens=tuple(token for piece in encoded for token in piece),
            owners=tuple(owner for owner, piece in enumerate(encoded) for _ in piece),
            sizes=tuple(len(piece.encode()) for piece in pieces),
        )


def _by_length(cut: Sequence[tuple[str, Window]], batch_tokens: int) -> list[list[tuple[str, Window]]]:
    """Group windows of like length, longest first, so that little is padded and memory peaks at once."""
    batches: list[list[tuple[str, Window]]] = []
    for item in sorted(cut, key=lambda each: len(each[1].tokens), reverse=True):
        longest = len(batches[-1][0][1].tokens) if batches else 0
        if batches and longest * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(item)
        else:
            batches.append([item])
    return batches


def _losses(
    model: "PreTrainedModel", batches: Iterable[Windows], weights: Weights
) -> Iterator[tuple[Windows, list[torch.Tensor]]]:
    """Yield each batch with its losses; blocks that are on disk are read once for many batches."""
    if isinstance(weights, Resident):
        scorer = Scorer(model)
        yield from ((batch, _score(scorer, batch)) for batch in batches)
        return
    blocks = blocks_of(model)
    with fetched_on_call(weights, blocks):
        scorer = Scorer(model)
    for group in _groups(batches):
        found = run_by_block(lambda batch: _score(scorer, batch), blocks, group, weights)
        yield from zip(group, found, strict=True)


def _groups(batches: Iterable[Windows]) -> Iterator[list[Windows]]:
    group: list[Windows] = []
    for batch in batches:
        group.append(batch)
        if sum(_scored(each) for each in group) >= TOKENS_PER_READING:
            yield group
            group = []
    if group:
        yield group


def _scored(batch: Sequence[tuple[str, Window]]) -> int:
    return sum(window.scored for _, window in batch)


@torch.no_grad()
def _score(scorer: Scorer, batch: Windows) -> list[torch.Tensor]:
    lengths = [len(window.tokens) for _, window in batch]
    padded = [window.tokens + window.tokens[-1:] * (max(lengths) - len(window.tokens)) for _, window in batch]
    return scorer.score(torch.tensor(padded, device=scorer.device), [window.scored for _, window in batch], lengths)


def _summarise(loss: np.ndarray, counts: np.ndarray, size: int, resamples: int, seed: int) -> LanguagePerplexity:
    def perplexity(losses: np.ndarray, tokens: np.ndarray, axis: int = -1) -> np.ndarray:
        mean: np.ndarray = losses.sum(axis=axis) / tokens.sum(axis=axis)
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(mean))

    # A model that gives no number at all is as bad as can be, and must not pass for the best of a sorted list.
    loss = np.where(np.isnan(loss), np.inf, loss)
    scored = counts > 0
    loss, counts = loss[scored], counts[scored]
    value = float(perplexity(loss, counts))
    low, high = math.nan, math.nan
    if len(loss) > 1:
        interval = bootstrap(
            (loss, counts),
            perplexity,
            paired=True,
            vectorized=True,
            method="percentile",
            n_resamples=resamples,
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    bits = float(loss.sum()) / math.log(2) / size
    return LanguagePerplexity(value, bits, int(counts.sum()), size, low, high)


def as_record(measured: Mapping[str, LanguagePerplexity]) -> dict[str, dict[str, float | int | None]]:
    """Return what results.json holds; an interval that one sentence cannot give is null."""
    return {
        code: {
            key: (None if isinstance(value, float) and math.isnan(value) else value)
            for key, value in asdict(one).items()
        }
        for code, one in measured.items()
    }
