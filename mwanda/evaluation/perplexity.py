"""Perplexity and bits per byte of a model, per language."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt
from jaxtyping import Int

from mwanda.calibration.packing import document_start
from mwanda.errors import ConfigurationError, CorpusError
from mwanda.evaluation.finite import Which, check_losses
from mwanda.evaluation.head import Scorer
from mwanda.evaluation.protocol import Protocol, StartToken, Window, windows
from mwanda.evaluation.sentence_losses import SentenceLosses
from mwanda.evaluation.significance import intervals
from mwanda.languages.ratios import exponential
from mwanda.models import blocks_of
from mwanda.models.forward import input_device, one_text_a_row
from mwanda.models.streaming import fetched_on_call
from mwanda.models.weights import Resident, Weights
from mwanda.pruner.walk import run_by_block
from mwanda.system.device import available_bytes
from mwanda.system.distributed import World
from mwanda.system.progress import Progress, Silent


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


Windows = Sequence[tuple[str, Window]]
LEVELS = {"document": ("document/2", "\n"), "sentence": ("sentence/1", "")}
"""Name and version of each protocol, and what follows a sentence in it."""

NO_LOSSES = SentenceLosses()
TOKENS_AT_ONCE, TOKENS_ON_DEVICE = 1 << 10, 1 << 15
"""Tokens in a forward pass on the CPU, and at most elsewhere: what starts a small model's kernels takes longer than
their work on few tokens."""

SHARE_OF_MEMORY = 0.25
"""Of what is free on a device, for what the matrices of a block give in a forward pass."""

TOKENS_PER_READING = 1 << 16
"""Scored tokens that pass a block together when blocks are read from disk: their hidden states are in memory."""


@dataclass(frozen=True)
class LanguagePerplexity:
    """Perplexity and bits per byte of one language; `low` and `high` end 95 % bootstrap intervals over its sentences.

    Args:
        perplexity: `exp` of the mean loss over all scored tokens.
        bits_per_byte: loss in bits over the UTF-8 bytes of the text, comparable across tokenizers and languages.
        tokens: scored tokens.
        bytes: UTF-8 bytes of the text they stand for.
        low: lower end of the interval of the perplexity.
        high: its upper end.
        bits_per_character: loss in bits over the Unicode characters of the text.
        characters: of the text that the tokens stand for.
        bits_per_byte_low: lower end.
        bits_per_byte_high: upper end.
        bits_per_character_low: lower end.
        bits_per_character_high: upper end.
        losses: what was measured of each sentence, to compare it with another measurement.
    """

    perplexity: float
    bits_per_byte: float
    tokens: int
    bytes: int
    low: float
    high: float
    bits_per_character: float = math.nan
    characters: int = 0
    bits_per_byte_low: float = math.nan
    bits_per_byte_high: float = math.nan
    bits_per_character_low: float = math.nan
    bits_per_character_high: float = math.nan
    losses: SentenceLosses = NO_LOSSES

    def __post_init__(self) -> None:
        if isinstance(self.losses, Mapping):  # as `asdict` and JSON give it
            object.__setattr__(self, "losses", SentenceLosses(**self.losses))


@dataclass(frozen=True)
class Text:
    """A language's evaluation text as tokens, with the sentence that each token belongs to.

    Args:
        tokens: of all sentences.
        sentence_ids: the sentence of each token.
        sizes: UTF-8 bytes of each sentence, of what is scored of it.
        characters: Unicode characters, likewise.
        starts: where in `tokens` a text starts: of every sentence, or of the document alone.
    """

    tokens: tuple[int, ...]
    sentence_ids: tuple[int, ...]
    sizes: tuple[int, ...]
    characters: tuple[int, ...]
    starts: tuple[int, ...] = (0,)

    def windows(self, window: int, stride: int, start: int | None, *, every: bool) -> Iterator[Window]:
        """Yield the windows of all its texts; `first` counts from the first of them."""
        for begin, end in zip(self.starts, (*self.starts[1:], len(self.tokens)), strict=True):
            for each in windows(self.tokens[begin:end], window, stride, start, every=every):
                yield replace(each, first=begin + each.first)


@dataclass(frozen=True)
class Perplexity:
    """Perplexity of the evaluation split, of the sentences of a language joined to one document, or each by itself.

    Args:
        protocol: `document`, or `sentence`: no sentence is seen with another one.
        window, stride, start_token, sentences: see Protocol.
        batch_tokens: tokens in a forward pass, or None for as many as suit the device; changes speed and memory, not
            the result.
        resamples: of the bootstrap.

    Raises:
        ConfigurationError: the stride is longer than the window.
    """

    window: Annotated[int, Gt(0)] = 512
    stride: Annotated[int, Gt(0)] = 512
    start_token: StartToken = True
    sentences: Annotated[int, Gt(0)] | None = None
    batch_tokens: Annotated[int, Gt(0)] | None = None
    resamples: Annotated[int, Ge(100)] = 1000
    protocol: Literal["document", "sentence"] = "document"

    def __post_init__(self) -> None:
        if self.stride > self.window:
            raise ConfigurationError("evaluation.stride", self.stride, f"exceeds evaluation.window={self.window}")

    @property
    def definition(self) -> Protocol:
        """The protocol of these settings."""
        name, join = LEVELS[self.protocol]
        return Protocol(self.window, self.stride, self.start_token, join, self.sentences, name=name)

    def texts(self, tokenizer: "PreTrainedTokenizerBase", sentences: Mapping[str, Sequence[str]]) -> dict[str, Text]:
        """Tokenise each language's sentences once, for the dense and the pruned model.

        Raises:
            CorpusError: a language has no evaluation text, or none of which a token can be scored.
        """
        return {code: self._text(tokenizer, code, part) for code, part in sentences.items()}

    def measure(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        texts: Mapping[str, Text],
        progress: Progress | None = None,
        which: Which = "dense",
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
            which: whether `model` is the dense or the pruned one.
            seed: of the bootstrap.
            weights: where blocks are kept; None when the whole model is in memory.
            world: the processes that share the work.

        Raises:
            EvaluationError: the model gives what is no number; see `check_losses`.
        """
        world = world or World()
        loss = {code: np.zeros(len(text.sizes)) for code, text in texts.items()}
        counts = {code: np.zeros(len(text.sizes), dtype=np.int64) for code, text in texts.items()}
        batches = world.shard(self.batches(tokenizer, texts, tokens_at_once(model, world)))
        shown = (progress or Silent()).track(batches, f"evaluate {which}", unit="tokens", weight=_scored)
        weights = weights or Resident()
        with one_text_a_row(), _scorer(model, weights) as scorer:
            for batch, scored in _losses(scorer, model, shown, weights):
                for (code, window), values in zip(batch, scored, strict=True):
                    sentence_ids = texts[code].sentence_ids[window.first : window.first + window.scored]
                    count = len(loss[code])
                    loss[code] += np.bincount(sentence_ids, values.double().numpy(), minlength=count)
                    counts[code] += np.bincount(sentence_ids, minlength=count)
        for part in (*loss.values(), *counts.values()):
            world.all_reduce([torch.from_numpy(part)])
        losses = {code: _by_sentence(text, counts[code], loss[code]) for code, text in texts.items()}
        check_losses(which, losses)
        return self._summarise(losses, seed)

    def batches(
        self, tokenizer: "PreTrainedTokenizerBase", texts: Mapping[str, Text], at_once: int = TOKENS_AT_ONCE
    ) -> list[Windows]:
        """Return the windows that pass the model together, each with its language.

        Args:
            tokenizer: that made `texts`.
            texts: what is scored.
            at_once: tokens of a forward pass where the settings leave that open.
        """
        start = document_start(tokenizer) if self.start_token else None
        cut = [
            (code, window)
            for code, text in texts.items()
            for window in text.windows(self.window, self.stride, start, every=self.start_token is True)
        ]
        return _by_length(cut, self.batch_tokens or at_once)

    def longest(self, tokenizer: "PreTrainedTokenizerBase", texts: Mapping[str, Text]) -> int:
        """Return the tokens of the longest window."""
        return max((len(window.tokens) for batch in self.batches(tokenizer, texts) for _, window in batch), default=0)

    def _summarise(self, measured: Mapping[str, SentenceLosses], seed: int) -> dict[str, LanguagePerplexity]:
        found = {}
        for code, ends in intervals(measured, self.resamples, seed).items():
            losses = measured[code]
            nats = math.fsum(losses.nats)
            tokens, size, characters = (sum(part) for part in (losses.tokens, losses.bytes, losses.characters))
            found[code] = LanguagePerplexity(
                exponential(_ratio(nats, tokens)),
                _ratio(nats, size) / math.log(2),
                tokens,
                size,
                *ends["perplexity"],
                _ratio(nats, characters) / math.log(2),
                characters,
                *ends["bits_per_byte"],
                *ends["bits_per_character"],
                losses,
            )
        return found

    def _text(self, tokenizer: "PreTrainedTokenizerBase", code: str, sentences: Sequence[str]) -> Text:
        chosen = sentences[: self.sentences] if self.sentences else sentences
        if not chosen:
            raise CorpusError(f"{code} has no evaluation text; choose another corpus by evaluation.corpus=…")
        pieces = [sentence + self.definition.join for sentence in chosen]
        encoded = tokenizer(pieces, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        texts = range(len(pieces)) if self.protocol == "sentence" else range(1)
        sizes, characters = [len(piece.encode()) for piece in pieces], [len(piece) for piece in pieces]
        led = self.start_token and document_start(tokenizer) is not None
        if sum(map(len, encoded)) <= (0 if led else len(texts)):
            raise CorpusError(f"{code}: its evaluation text has no token to score; take more of it, or another corpus")
        if not led:
            for place in texts:  # what nothing predicts is not scored, and its text must not count
                lost, letters = _extent(tokenizer, encoded[place][:1])
                sizes[place] -= lost
                characters[place] -= letters
        ends = list(accumulate(map(len, encoded), initial=0))
        return Text(
            tokens=tuple(token for piece in encoded for token in piece),
            sentence_ids=tuple(number for number, piece in enumerate(encoded) for _ in piece),
            sizes=tuple(sizes),
            characters=tuple(characters),
            starts=tuple(ends[place] for place in texts),
        )


def _extent(tokenizer: "PreTrainedTokenizerBase", tokens: list[int]) -> tuple[int, int]:
    """Return the bytes and characters that one token (or none) stands for; a part of a character is no character."""
    text = str(tokenizer.decode(tokens, clean_up_tokenization_spaces=False))
    if "\ufffd" in text:  # byte by byte: `<0xE5>`, or one letter of a byte-level alphabet for each byte
        name = next(iter(tokenizer.convert_ids_to_tokens(tokens)))
        return (1 if name.startswith("<0x") else len(name)), 0
    return len(text.encode()), len(text)


def _by_sentence(text: Text, counts: np.ndarray, loss: np.ndarray) -> SentenceLosses:
    return SentenceLosses(tuple(counts.tolist()), text.sizes, text.characters, tuple(loss.tolist()))


def _ratio(part: float, whole: int) -> float:
    return part / whole if whole else math.nan


def _by_length(cut: Windows, batch_tokens: int) -> list[Windows]:
    """Group windows of like length, longest first, in as few batches as there can be, of nearly equal size.

    So little is padded, and none is small: on an accelerator that takes nearly as long as a full one.
    """
    ordered = sorted(cut, key=lambda each: len(each[1].tokens), reverse=True)
    lengths = [len(window.tokens) for _, window in ordered]
    fitting = [max(1, batch_tokens // length) for length in lengths]
    needed = [0] * (len(ordered) + 1)  # batches, for the windows from each one on
    for place in reversed(range(len(ordered))):
        needed[place] = 1 + needed[min(len(ordered), place + fitting[place])]
    batches, begin, tokens = [], 0, sum(lengths)
    for left in range(needed[0], 0, -1):
        share = math.ceil(tokens / left / lengths[begin])
        end = begin + min(share, fitting[begin])
        while needed[end] > left - 1:  # the others would not hold the rest
            end += 1
        batches.append(ordered[begin:end])
        tokens -= sum(lengths[begin:end])
        begin = end
    return list(batches)


@contextmanager
def _scorer(model: "PreTrainedModel", weights: Weights) -> Iterator[Scorer]:
    """Give what scores windows, once it has tried the whole model, and have norms be as fast as they can meanwhile."""
    with nullcontext() if isinstance(weights, Resident) else fetched_on_call(weights, blocks_of(model)):
        scorer = Scorer(model)
    with scorer.faster_norms():
        yield scorer


def _losses(
    scorer: Scorer, model: "PreTrainedModel", batches: Iterable[Windows], weights: Weights
) -> Iterator[tuple[Windows, list[torch.Tensor]]]:
    """Yield each batch with its losses; blocks that are on disk are read once for many batches."""
    if isinstance(weights, Resident):
        yield from ((batch, _score(scorer, batch)) for batch in batches)
        return
    blocks = blocks_of(model)
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


def tokens_at_once(model: "PreTrainedModel", world: World) -> int:
    """Return how many tokens suit the device of a model in a forward pass, by its memory; the same in all processes.

    Several processes take less at once, so that each has a part of the work.
    """
    device = input_device(model)
    if device.type == "cpu":
        return TOKENS_AT_ONCE
    # In float32 and twice: families widen and copy in between.
    a_token = 8 * max(sum(matrix.shape[0] for matrix in block.matrices) for block in blocks_of(model))
    fitting = int(SHARE_OF_MEMORY * available_bytes(device)) // a_token
    fitting = min(int(each) for each in world.all_gather(str(fitting)))
    return max(TOKENS_AT_ONCE, min(TOKENS_ON_DEVICE // world.size, fitting // TOKENS_AT_ONCE * TOKENS_AT_ONCE))


def _scored(batch: Sequence[tuple[str, Window]]) -> int:
    return sum(window.scored for _, window in batch)


@torch.no_grad()
def _score(scorer: Scorer, batch: Windows) -> list[torch.Tensor]:
    lengths = [len(window.tokens) for _, window in batch]
    return scorer.score(padded(batch), [window.scored for _, window in batch], lengths)


def padded(batch: Windows) -> Int[torch.Tensor, "B T"]:
    """Return the tokens of windows, padded on the right, where a causal model cannot look from what is scored."""
    longest = max(len(window.tokens) for _, window in batch)
    return torch.tensor([window.tokens + window.tokens[-1:] * (longest - len(window.tokens)) for _, window in batch])


def as_record(measured: Mapping[str, LanguagePerplexity]) -> dict[str, dict[str, float | int | None]]:
    """Return what results.json holds: all but the losses of sentences; an interval that one cannot give is null."""
    return {
        code: {
            one.name: _or_none(getattr(each, one.name)) for one in fields(LanguagePerplexity) if one.name != "losses"
        }
        for code, each in measured.items()
    }


def _or_none(value: float | int) -> float | int | None:
    return None if isinstance(value, float) and math.isnan(value) else value
