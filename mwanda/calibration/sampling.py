"""How much calibration text each language gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from annotated_types import Ge, Gt

from mwanda.calibration.packing import CalibrationSet, check_no_padding, document_start, pack, stream_tokens
from mwanda.errors import ConfigurationError, CorpusError


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Sampling = Literal["equal", "proportional", "temperature"]


@dataclass(frozen=True)
class Calibration:
    """The size of the calibration set and its division among languages.

    Args:
        sequences: sequences in all; with `equal` rounded down to a multiple of the number of languages, so that
            every language gives exactly the same number of tokens.
        length: tokens in a sequence.
        sampling: `equal`; `proportional` to the bytes of text that the corpus holds of a language; or
            `temperature`, proportional to those bytes to the power of 1 / `temperature`.
        temperature: evens out the proportions; 1 is `proportional`.
        packing: `concatenate` joins sentences by a line break and cuts; sentences may start in one sequence and end
            in the next.
        start_token: lead each sequence with the token that starts a document.
        seed: of the order in which sentences are taken; null takes them as they stand.
    """

    sequences: Annotated[int, Gt(0)] = 120
    length: Annotated[int, Ge(2)] = 128
    sampling: Sampling = "equal"
    temperature: Annotated[float, Gt(0)] = 3.0
    packing: Literal["concatenate"] = "concatenate"
    start_token: bool = True
    seed: int | None = None

    def build(self, tokenizer: "PreTrainedTokenizerBase", sentences: Mapping[str, Sequence[str]]) -> CalibrationSet:
        """Tokenise and pack the sentences of each language.

        Raises:
            ConfigurationError: there are fewer sequences than languages.
            CorpusError: a language has too little text; the message says how much there is and what would fit.
        """
        sizes = {code: sum(len(s.encode()) for s in part) for code, part in sentences.items()}
        counts = self.divide(sizes)
        start = document_start(tokenizer) if self.start_token else None
        packed = {
            code: pack(stream_tokens(tokenizer, self._ordered(part), "\n"), self.length, start, counts[code])
            for code, part in sentences.items()
        }
        self._check_enough(sizes, counts, {code: part.shape[0] for code, part in packed.items()})
        padding = tokenizer.pad_token_id
        check_no_padding(list(packed.values()), padding, {tokenizer.eos_token_id, tokenizer.bos_token_id})
        lead = "each led by the document start token" if start is not None else "without a start token"
        packing = f"{self.packing}: sentences joined by a line break, cut into {self.length} tokens, {lead}"
        return CalibrationSet(tuple(packed), tuple(packed.values()), packing)

    def divide(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Return the number of sequences of each language, given the bytes of text that there are.

        Raises:
            ConfigurationError: there are fewer sequences than languages.
        """
        if self.sequences < len(sizes):
            raise ConfigurationError(
                "calibration.sequences", self.sequences, f"must be at least the number of languages, {len(sizes)}"
            )
        if self.sampling == "equal":
            return dict.fromkeys(sizes, self.sequences // len(sizes))
        power = 1.0 if self.sampling == "proportional" else 1 / self.temperature
        return _apportion({code: size**power for code, size in sizes.items()}, self.sequences)

    def _ordered(self, sentences: Sequence[str]) -> Sequence[str]:
        if self.seed is None:
            return sentences
        order = torch.randperm(len(sentences), generator=torch.Generator().manual_seed(self.seed))
        return [sentences[index] for index in order.tolist()]

    def _check_enough(self, sizes: Mapping[str, int], wanted: Mapping[str, int], found: Mapping[str, int]) -> None:
        short = {code: found[code] for code in wanted if found[code] < wanted[code]}
        if not short:
            return
        code = min(short, key=lambda each: short[each])
        fits = self._most_that_fit(sizes, found)
        remedy = (
            f"calibration.sequences={fits} would fit"
            if fits
            else f"not even one fits: use calibration.length below {self.length} or another corpus"
        )
        raise CorpusError(
            f"{len(short)} language(s) have too little calibration text ({', '.join(sorted(short))}): {code} gives "
            f"{found[code]} sequence(s) of {self.length} tokens, {wanted[code]} are asked for; {remedy}"
        )

    def _most_that_fit(self, sizes: Mapping[str, int], found: Mapping[str, int]) -> int:
        """Return the most sequences whose division asks no language for more than was found, or 0."""
        for total in range(sum(found.values()), len(found) - 1, -1):
            counts = replace(self, sequences=total).divide(sizes)
            if all(counts[code] <= found[code] for code in found):
                return sum(counts.values())
        return 0


def _apportion(weights: Mapping[str, float], seats: int) -> dict[str, int]:
    """Divide `seats` by weight, one at least for each, by largest remainder."""
    total = sum(weights.values()) or 1.0  # no text at all: the caller then says which languages lack it
    spare = seats - len(weights)
    exact = {code: spare * weight / total for code, weight in weights.items()}
    given = {code: 1 + int(share) for code, share in exact.items()}
    by_remainder = sorted(exact, key=lambda code: exact[code] - int(exact[code]), reverse=True)
    for code in by_remainder[: seats - sum(given.values())]:
        given[code] += 1
    return given
