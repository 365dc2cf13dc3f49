"""Divides the calibration budget among languages."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le

from mwanda.calibration.mixes import mix_of, mixes
from mwanda.calibration.packing import CalibrationSet, check_no_padding, document_start, pack, stream_tokens
from mwanda.errors import ConfigurationError, CorpusError
from mwanda.statistics.weights import LanguageWeights


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Sampling = Literal["equal", "proportional", "corpus", "temperature", "english", "target"]
Proportions = Literal["corpus", "mix"]
ENGLISH = "eng_Latn"
UNITS = ("sequences", "tokens", "bytes")
"""What the size may be given in."""


@dataclass(frozen=True)
class Calibration:
    """The size of the calibration set, and how it is divided among languages.

    The size is given in exactly one of `sequences`, `tokens` and `bytes`.

    Args:
        sequences: sequences in all; with `equal` rounded down to a multiple of the number of languages, so that
            every language gives exactly the same number of tokens.
        tokens: tokens in all, rounded down to whole sequences; then as `sequences`.
        bytes: UTF-8 bytes of text in all; each language gives as many full sequences as its part makes, so that the
            same text weighs the same however many tokens it takes.
        length: tokens in a sequence.
        sampling: `equal`; `proportional` to what the model was trained on (Zeng et al. 2024), languages outside of
            which give no text; proportional to the bytes of text that the `corpus` holds of a language;
            `temperature`, to the power of 1 / `temperature` of what `proportions` says; `english` alone; or `target`,
            the languages of that key alone, equally.
        temperature: evens out the proportions; 1 leaves them as they are.
        proportions: what `temperature` evens out: bytes of the `corpus`, or the training `mix`.
        mix: name of a file of mwanda/calibration/mixes; null finds the model's own.
        languages: codes of the languages that give text, seen or unseen in evaluation; null takes those of the run.
        target: codes of the only languages that give text under `sampling=target`.
        packing: `concatenate` joins sentences by a line break and cuts; sentences may start in one sequence and end
            in the next.
        weights: how much each language counts in norms, means over languages and second moments: `uniform`, every token
            alike; `balanced`, the second moments of each language scaled to unit mean trace; or a weight by code, as if
            a language stood so many times in the set (one for those that are not named).
        unit_tokens: scale what enters a matrix to a root mean square of one for each token before anything is summed,
            so that no token counts for more because its activations are large.
        moment_share: share of the tokens of a sequence from which correlations between inputs come, for solvers and
            `schedule=lsa`, which work from second moments; how large inputs are is told by all of them. Experts of a
            mixture take all.
        start_token: lead each sequence with the token that starts a document.
        seed: of the order in which sentences are taken; null takes them as they stand.

    Raises:
        ConfigurationError: the size is given not at all or twice, or two keys say which languages give text.
    """

    sequences: Annotated[int, Gt(0)] | None = 120
    tokens: Annotated[int, Gt(0)] | None = None
    bytes: Annotated[int, Gt(0)] | None = None
    length: Annotated[int, Ge(2)] = 128
    sampling: Sampling = "equal"
    temperature: Annotated[float, Gt(0)] = 3.0
    proportions: Proportions = "corpus"
    mix: str | None = None
    languages: list[str] | None = None
    target: list[str] | None = None
    packing: Literal["concatenate"] = "concatenate"
    weights: Literal["uniform", "balanced"] | dict[str, Annotated[float, Ge(0)]] = "uniform"
    unit_tokens: bool = False
    moment_share: Annotated[float, Gt(0), Le(1)] = 1.0
    start_token: bool = True
    seed: int | None = None

    def __post_init__(self) -> None:
        given = [unit for unit in UNITS if getattr(self, unit) is not None]
        if not given:
            raise ConfigurationError("calibration.sequences", None, "one of these must be given", UNITS)
        if len(given) > 1:
            first, second = given[:2]
            reason = f"the size is given twice; add calibration.{first}=null"
            raise ConfigurationError(f"calibration.{second}", getattr(self, second), reason)
        if self.sampling == "target" and not self.target:
            raise ConfigurationError("calibration.sampling", "target", "needs calibration.target=[CODE,…]")
        if self.sampling != "target" and self.target is not None:
            raise ConfigurationError("calibration.target", _list(self.target), "goes with calibration.sampling=target")
        if self.sampling in ("english", "target") and self.languages is not None:
            reason = f"calibration.sampling={self.sampling} says which languages give text"
            raise ConfigurationError("calibration.languages", _list(self.languages), reason)

    def for_model(self, path: str) -> "Calibration":
        """Return the same with the training mix of the model by its name, where one is used.

        Raises:
            ConfigurationError: no mix of the model is known.
        """
        return replace(self, mix=mix_of(self.mix, path, self.sampling).name) if self._by_mix else self

    def codes(self, run: Sequence[str]) -> list[str]:
        """Return the languages that give text, given those of the run; a mix leaves out what it has nothing of.

        Raises:
            ConfigurationError: it has none of them.
        """
        chosen = {"english": [ENGLISH], "target": self.target}.get(self.sampling) or self.languages or list(run)
        if not self._by_mix:
            return chosen
        shares = self._shares
        inside = [code for code in chosen if code in shares]
        if not inside:
            raise ConfigurationError("calibration.mix", self.mix, "has none of the calibration languages", shares)
        return inside

    @property
    def named_by(self) -> str:
        """The key that says which languages give text."""
        return {"english": "sampling", "target": "target"}.get(self.sampling, "languages")

    @property
    def unit(self) -> str:
        """What the size is given in."""
        return next(unit for unit in UNITS if getattr(self, unit) is not None)

    @property
    def most_tokens(self) -> int:
        """The most tokens that the set may hold: of bytes, one token for each and a start token in each sequence."""
        if self.bytes is not None:
            return self.bytes * self.length // (self.length - 1)
        return self._sequences * self.length

    def build(self, tokenizer: "PreTrainedTokenizerBase", sentences: Mapping[str, Sequence[str]]) -> CalibrationSet:
        """Tokenise and pack the sentences of each language.

        Raises:
            ConfigurationError: there are fewer sequences than languages.
            CorpusError: a language has too little text; the message says how much there is and what would fit.
        """
        sizes = {code: sum(len(s.encode()) for s in part) for code, part in sentences.items()}
        counts = self.divide(sizes)
        start = document_start(tokenizer) if self.start_token else None
        if self.bytes is not None:
            self._check_enough_bytes(sizes, counts)
            taken = {code: list(first_bytes(self._ordered(part), counts[code])) for code, part in sentences.items()}
            limits = dict.fromkeys(sentences, sys.maxsize)
        else:
            taken = {code: list(self._ordered(part)) for code, part in sentences.items()}
            limits = counts
        packed = {
            code: pack(stream_tokens(tokenizer, part, "\n"), self.length, start, limits[code])
            for code, part in taken.items()
        }
        found = {code: part.shape[0] for code, part in packed.items()}
        if self.bytes is None:
            self._check_enough(sizes, counts, found)
        else:
            self._check_one_sequence(counts, found)
        check_no_padding(tokenizer, packed, taken)
        lead = "each led by the document start token" if start is not None else "without a start token"
        packing = f"{self.packing}: sentences joined by a line break, cut into {self.length} tokens, {lead}"
        return CalibrationSet(tuple(packed), tuple(packed.values()), packing, self.weighting(list(packed)))

    def weighting(self, codes: Sequence[str]) -> LanguageWeights:
        """Return the weights of these languages.

        Raises:
            ConfigurationError: a weight is of a language that gives no text, or all weights are zero.
        """
        own = self.weights if isinstance(self.weights, dict) else {}
        unknown = [code for code in own if code not in codes]
        if unknown:
            raise ConfigurationError("calibration.weights", unknown[0], "gives no calibration text", codes)
        given = tuple(own.get(code, 1.0) for code in codes)
        if not any(given):
            raise ConfigurationError("calibration.weights", self.weights, "some language must weigh more than zero")
        balanced, alike = self.weights == "balanced", set(given) == {1.0}
        return LanguageWeights(None if alike else given, balanced, self.unit_tokens, self.moment_share)

    def divide(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Return the number of sequences of each language, or of bytes if the size is given in bytes.

        Args:
            sizes: the bytes of text that there are of each language that gives text.

        Raises:
            ConfigurationError: there are fewer sequences than languages.
        """
        total = self.bytes if self.bytes is not None else self._sequences
        if total < len(sizes):
            least = len(sizes) if self.tokens is None else len(sizes) * self.length
            each = {"sequences": "", "tokens": f" times {self.length} tokens", "bytes": ""}[self.unit]
            reason = f"must be at least the number of languages, {len(sizes)}{each}"
            reason += f" = {least}" if each else ""
            raise ConfigurationError(f"calibration.{self.unit}", getattr(self, self.unit), reason)
        if self.sampling in ("equal", "english", "target"):
            return dict.fromkeys(sizes, total // len(sizes))
        power = 1 / self.temperature if self.sampling == "temperature" else 1.0
        return _apportion({code: weight**power for code, weight in self._weights(sizes).items()}, total)

    @property
    def _by_mix(self) -> bool:
        return self.sampling == "proportional" or (self.sampling == "temperature" and self.proportions == "mix")

    @property
    def _sequences(self) -> int:
        return self.sequences if self.sequences is not None else (self.tokens or 0) // self.length

    @property
    def _shares(self) -> Mapping[str, float]:
        assert self.mix is not None, "for_model says which"
        return mixes()[self.mix].shares

    def _weights(self, sizes: Mapping[str, int]) -> Mapping[str, float]:
        return {code: self._shares[code] for code in sizes} if self._by_mix else sizes

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
            f"calibration.{self.unit}={fits if self.tokens is None else fits * self.length} would fit"
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
            counts = replace(self, sequences=total, tokens=None).divide(sizes)
            if all(counts[code] <= found[code] for code in found):
                return sum(counts.values())
        return 0

    def _check_enough_bytes(self, sizes: Mapping[str, int], wanted: Mapping[str, int]) -> None:
        short = [code for code in wanted if sizes[code] < wanted[code]]
        if not short:
            return
        assert self.bytes is not None
        code = min(short, key=lambda each: sizes[each] / wanted[each])
        fits = int(self.bytes * sizes[code] / wanted[code])
        while fits >= len(sizes):
            counts = replace(self, bytes=fits).divide(sizes)
            if all(counts[each] <= sizes[each] for each in sizes):
                break
            fits -= 1
        remedy = f"calibration.bytes={fits} would fit" if fits >= len(sizes) else "use another corpus"
        raise CorpusError(
            f"{len(short)} language(s) have too little calibration text ({', '.join(sorted(short))}): {code} has "
            f"{sizes[code]} bytes, {wanted[code]} are asked for; {remedy}"
        )

    def _check_one_sequence(self, wanted: Mapping[str, int], found: Mapping[str, int]) -> None:
        short = sorted(code for code in found if found[code] == 0)
        if short:
            raise CorpusError(
                f"{len(short)} language(s) give no full sequence of {self.length} tokens ({', '.join(short)}): "
                f"{short[0]} has a part of {wanted[short[0]]} bytes; "
                "raise calibration.bytes or lower calibration.length"
            )


def _list(codes: Sequence[str]) -> str:
    return f"[{','.join(codes)}]"


def first_bytes(sentences: Sequence[str], limit: int) -> Iterator[str]:
    """Yield the first `limit` bytes of UTF-8, the last sentence cut short, never within a character."""
    left = limit
    for sentence in sentences:
        encoded = sentence.encode()
        if len(encoded) >= left:
            yield encoded[:left].decode(errors="ignore")
            return
        yield sentence
        left -= len(encoded)


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
