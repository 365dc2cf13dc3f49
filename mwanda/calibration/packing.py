"""Packs each language's text into sequences of equal length, without padding and without mixing languages."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from mwanda.errors import CorpusError
from mwanda.statistics.weights import UNIFORM, LanguageWeights


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


SHORTEST = 16
"""Tokens below which a sequence is not cut."""

MARKUP = re.compile(r"[<\[|]")
"""What tells `<pad>` and `[PAD]` from an ordinary token that a tokenizer pads with."""


@dataclass(frozen=True)
class Batch:
    """Some sequences of one length; sequence `b` is in language `languages[b]`, which the computer's memory holds."""

    tokens: Int[Tensor, "B T"]
    languages: Int[Tensor, " B"]


@dataclass(frozen=True)
class CalibrationSet:
    """All calibration sequences of a run, by language.

    Args:
        codes: the languages; `languages` of a batch counts in this order.
        sequences: per language its sequences, each of the same length.
        packing: how the sequences were made, for the record.
        weights: how much each language counts.
    """

    codes: tuple[str, ...]
    sequences: tuple[Int[Tensor, "S T"], ...]
    packing: str
    weights: LanguageWeights = UNIFORM

    def batches(self, size: int, device: torch.device | str = "cpu") -> list[Batch]:
        """Return batches of `size` sequences, languages in order."""
        tokens = torch.cat(self.sequences).to(device)  # all in one go, as an accelerator is waited for each time
        counts = torch.tensor([part.shape[0] for part in self.sequences])
        languages = torch.repeat_interleave(torch.arange(len(self.codes)), counts)
        return [Batch(*parts) for parts in zip(tokens.split(size), languages.split(size), strict=True)]

    def part(self, fraction: float) -> "CalibrationSet":
        """Return about `fraction` of the tokens of each language: its first sequences, cut where one is too much."""
        counts = [max(1, round(fraction * part.shape[0])) for part in self.sequences]
        length = min(self.length, max(SHORTEST, round(fraction * self.count * self.length / sum(counts))))
        chosen = tuple(part[:count, :length] for part, count in zip(self.sequences, counts, strict=True))
        return CalibrationSet(self.codes, chosen, self.packing, self.weights)

    @property
    def tokens_per_language(self) -> dict[str, int]:
        """The number of tokens of each language."""
        return {code: part.numel() for code, part in zip(self.codes, self.sequences, strict=True)}

    @property
    def length(self) -> int:
        """Tokens in a sequence."""
        return self.sequences[0].shape[1]

    @property
    def count(self) -> int:
        """Sequences in all."""
        return sum(part.shape[0] for part in self.sequences)

    def fingerprint(self) -> str:
        """Return a digest of languages and tokens: two runs with the same one saw the same calibration data."""
        digest = hashlib.sha256()
        for code, part in zip(self.codes, self.sequences, strict=True):
            digest.update(f"{code}:{tuple(part.shape)}".encode())
            digest.update(part.to(torch.int64).numpy().tobytes())
        return digest.hexdigest()[:16]


def document_start(tokenizer: "PreTrainedTokenizerBase") -> int | None:
    """Return the token a document starts with: BOS, or EOS for a tokenizer that has no BOS, or None."""
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return None if start is None else int(start)


def stream_tokens(tokenizer: "PreTrainedTokenizerBase", sentences: Iterable[str], join: str) -> Iterator[int]:
    """Yield the tokens of all sentences, each followed by `join`, without special tokens."""
    for sentence in sentences:
        yield from tokenizer.encode(sentence + join, add_special_tokens=False)


def pack(tokens: Iterable[int], length: int, start: int | None, at_most: int) -> Int[Tensor, "S T"]:
    """Cut a stream of tokens into at most `at_most` sequences of exactly `length`, each led by `start` if given.

    What does not fill a sequence is left out: no padding token can enter a statistic.
    """
    body = length if start is None else length - 1
    sequences: list[list[int]] = []
    current: list[int] = []
    for token in tokens:
        if len(sequences) == at_most:
            break
        current.append(token)
        if len(current) == body:
            sequences.append(current if start is None else [start, *current])
            current = []
    return torch.tensor(sequences, dtype=torch.int64).reshape(len(sequences), length)


def check_no_padding(
    tokenizer: "PreTrainedTokenizerBase",
    packed: Mapping[str, Int[Tensor, "S T"]],
    text: Mapping[str, Sequence[str]],
) -> None:
    """Refuse text that spells the padding token, which would enter the statistics.

    The token may stand among the others without being in the text: where it is also the one for what is unknown, or
    ends a text, or is an ordinary one such as `!`. That is no padding.

    Args:
        tokenizer: that made the tokens.
        packed: sequences of each language.
        text: sentences of each language.

    Raises:
        CorpusError: a sentence spells it; the message names the language and the sentence.
    """
    token, padding = tokenizer.pad_token, tokenizer.pad_token_id
    others = {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id}
    if padding is None or padding in others or not MARKUP.search(token):
        return
    for code, part in packed.items():
        spelt = next((line for line in text[code] if token in line), None) if bool((part == padding).any()) else None
        if spelt is not None:
            at = spelt.index(token)
            quoted = " ".join(spelt[max(0, at - 20) : at + len(token) + 20].split())
            raise CorpusError(
                f"the calibration text of {code} spells the padding token {token} in '…{quoted}…'; remove it there"
            )
