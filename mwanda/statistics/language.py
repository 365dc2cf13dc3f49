"""Per-language statistics of a matrix's inputs: sums that can be streamed and added.

Shapes: L languages, B sequences, T tokens per sequence, I input features.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from enum import Flag
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mwanda.statistics.second_moment import add_upper, cross_moment, mirror, thinned_moment, upper_moment
from mwanda.statistics.weights import UNIFORM, LanguageWeights


class Needs(Flag):
    """The input statistics that a criterion, solver or schedule needs; those of two of them are `first | second`.

    `NORMS` are the sums of squares per language, and part of all others: `COUNTS` adds the counts of positive and of
    non-zero inputs, `SECOND_MOMENTS` the second moments `XᵀX`, `MEANS` the sums of the inputs themselves, and
    `CROSS_MOMENTS` both `XᵀX` and `X̃ᵀX` with X̃ the inputs that the dense model has on the same tokens.
    """

    NOTHING = 0
    NORMS = 1
    COUNTS = 1 | 2
    SECOND_MOMENTS = 1 | 4
    MEANS = 1 | 8
    CROSS_MOMENTS = 1 | 4 | 16


@dataclass(frozen=True)
class SequenceSums:
    """Sums over the tokens of each sequence of one batch, made once and shared by matrices with one input.

    Of the second moment only what stands on and above the diagonal is there.
    """

    squares: Float[Tensor, "B I"]
    tokens: int
    positive: Int[Tensor, "B I"] | None = None
    nonzero: Int[Tensor, "B I"] | None = None
    second_moment: Float[Tensor, "I I"] | None = None
    values: Float[Tensor, "B I"] | None = None
    cross_moment: Float[Tensor, "I I"] | None = None

    @classmethod
    def of(
        cls,
        inputs: Float[Tensor, "B T I"],
        needs: Needs = Needs.COUNTS,
        weights: Float[Tensor, " B"] | None = None,
        dense: Float[Tensor, "B T I"] | None = None,
        moment_share: float = 1.0,
    ) -> "SequenceSums":
        """Reduce `inputs` over tokens: squares in float32, their sums over runs of tokens in float64.

        Args:
            inputs: of the matrices.
            needs: what is asked for.
            weights: of each sequence in the second moment, `Σ_b w_b Σ_t x_bt x_btᵀ`; None weighs all of them one.
            dense: the inputs of the dense model, for `CROSS_MOMENTS`.
            moment_share: of the tokens from which correlations in the second moment come.
        """
        # Once for all on the CPU; elsewhere half precision is read as it is wherever that will do.
        inputs = inputs.detach().float() if inputs.device.type == "cpu" else inputs.detach()
        counted, crossed, moment = Needs.COUNTS in needs, None, None
        squares = _sum_of_squares(inputs)
        if Needs.CROSS_MOMENTS in needs:
            assert dense is not None, "the dense inputs are observed beside the others"
            crossed = cross_moment(dense.detach(), inputs, weights)
        if Needs.SECOND_MOMENTS in needs:
            whole = moment_share == 1
            moment = upper_moment(inputs, weights) if whole else thinned_moment(inputs, squares, weights, moment_share)
        return cls(
            squares=squares,
            tokens=inputs.shape[1],
            positive=_count(inputs > 0) if counted else None,
            nonzero=_count(inputs != 0) if counted else None,
            second_moment=moment,
            values=_sum_of_values(inputs.float()) if Needs.MEANS in needs else None,
            cross_moment=crossed,
        )


def unit_tokens(inputs: Float[Tensor, "... I"], *others: Float[Tensor, "... I"]) -> tuple[Float[Tensor, "... I"], ...]:
    """Return `inputs` with each token scaled to a root mean square of one, and `others` by the same factors.

    A token without activation stays as it is. Half precision is kept where an accelerator holds it.
    """
    wide = inputs.device.type == "cpu" or inputs.dtype == torch.float64
    dtype, inputs = torch.float32 if wide else inputs.dtype, inputs.float() if wide else inputs
    size = torch.linalg.vector_norm(inputs, dim=-1, keepdim=True, dtype=torch.float32) / inputs.shape[-1] ** 0.5
    factor = torch.where(size > 0, 1 / size, 1)
    return tuple((each * factor).to(dtype) for each in (inputs, *others))


RUN = 256
"""Tokens summed in float32, before the sum goes on in float64."""


def _sum_of_squares(inputs: Float[Tensor, "B T I"]) -> Float[Tensor, "B I"]:
    if inputs.device.type != "cpu":
        return reduce_anywhere(inputs)
    return torch.stack([reduce_on_cpu(part) for part in inputs.split(RUN, dim=1)]).sum(dim=0, dtype=torch.float64)


def _sum_of_values(values: Float[Tensor, "B T I"]) -> Float[Tensor, "B I"]:
    return torch.stack([part.sum(dim=1) for part in values.split(RUN, dim=1)]).sum(dim=0, dtype=torch.float64)


def reduce_on_cpu(values: Float[Tensor, "B T I"]) -> Float[Tensor, "B I"]:
    """Return sums of squares by NumPy's einsum, without the squares in between: ten times as fast as a norm."""
    return torch.from_numpy(np.einsum("bti,bti->bi", values.numpy(), values.numpy()))


def reduce_anywhere(inputs: Float[Tensor, "B T I"]) -> Float[Tensor, "B I"]:
    """Return sums of squares on any device, in float64 over runs of tokens that are each reduced in float32.

    A norm reads half-precision inputs as they are: neither a copy in float32 nor the squares are ever there. (With
    `dtype=float64` it would make a copy of all inputs in float64 first.)
    """
    inputs = inputs.float() if inputs.dtype == torch.float64 else inputs
    norm = partial(torch.linalg.vector_norm, dtype=torch.float32)
    whole = inputs.shape[1] // RUN * RUN
    runs: Tensor = norm(inputs[:, :whole].unflatten(1, (-1, RUN)), dim=2).double().square().sum(dim=1)
    if whole < inputs.shape[1]:
        runs += norm(inputs[:, whole:], dim=1).double().square()
    return runs


FEW_RUNS = 4
"""Languages of a batch up to which an accelerator adds the sequences of each by themselves."""


def add_by_language(totals: Tensor, languages: Int[Tensor, " B"], values: Tensor) -> None:
    """Add to each language's row of `totals` the values of its sequences, in one fixed order of summation.

    `index_add_` of a GPU sums in the order in which its threads arrive or, where results have to repeat, sorts first,
    which takes longer than all the rest. What the computer's memory holds can be looked at without waiting.

    Args:
        totals: L × any shape.
        languages: of each sequence, here or on the device of `totals`.
        values: B × that shape; of sequences as such, they may be where `languages` are.
    """
    if totals.device.type == "cpu":
        totals.index_add_(0, languages, values.to(totals))
        return
    if languages.device.type == "cpu":
        found, lengths = torch.unique_consecutive(languages, return_counts=True)
        if len(found) <= FEW_RUNS:
            for language, part in zip(found.tolist(), values.split(lengths.tolist()), strict=True):
                totals[language].add_(part.sum(dim=0, dtype=totals.dtype))
            return
    numbers = torch.arange(len(totals), device=totals.device)[:, None]
    belongs = (numbers == languages.to(totals.device, non_blocking=True)).double()
    totals += (belongs @ values.to(totals.device, torch.float64, non_blocking=True)).to(totals.dtype)


def _count(marks: Bool[Tensor, "B T I"]) -> Int[Tensor, "B I"]:
    return marks.view(torch.uint8).sum(dim=1, dtype=torch.int32)


@dataclass
class LanguageStatistics:
    """Per language and input feature: `q_lj`, the counts of positive and of non-zero inputs, and `N_l`.

    Sums are kept in float64 (counts in int64), so that neither the order nor the size of batches matters beyond
    the rounding of one sequence. Memory is independent of the number of tokens. Counts, the second moments
    `H = Σ_l w_l Σ_t x_t x_tᵀ` (over all languages, in float32), the same with the dense model's inputs on the left, and
    the sums of the inputs are there when they were asked for.

    Sums per language are those of its tokens as they are; `weights` are the `w_l` that whoever pools over languages
    multiplies them by, and `votes` those of a mean in which each language counts once. The functions below that pool
    do so already. The second moments are weighted as they are streamed, one half of each until they are complete.
    """

    sum_squares: Float[Tensor, "L I"]
    tokens: Int[Tensor, " L"]
    positive: Int[Tensor, "L I"] | None = None
    nonzero: Int[Tensor, "L I"] | None = None
    second_moment: Float[Tensor, "I I"] | None = None
    sum_values: Float[Tensor, "L I"] | None = None
    cross_moment: Float[Tensor, "I I"] | None = None
    weighting: LanguageWeights = UNIFORM

    @classmethod
    def zeros(
        cls,
        languages: int,
        features: int,
        device: torch.device | str = "cpu",
        needs: Needs = Needs.COUNTS,
        weighting: LanguageWeights = UNIFORM,
    ) -> "LanguageStatistics":
        """Return statistics that have seen nothing."""
        shape, counted = (languages, features), Needs.COUNTS in needs
        return cls(
            sum_squares=torch.zeros(shape, dtype=torch.float64, device=device),
            tokens=torch.zeros(languages, dtype=torch.int64, device=device),
            positive=torch.zeros(shape, dtype=torch.int64, device=device) if counted else None,
            nonzero=torch.zeros(shape, dtype=torch.int64, device=device) if counted else None,
            second_moment=torch.zeros(features, features, device=device) if Needs.SECOND_MOMENTS in needs else None,
            sum_values=torch.zeros(shape, dtype=torch.float64, device=device) if Needs.MEANS in needs else None,
            cross_moment=torch.zeros(features, features, device=device) if Needs.CROSS_MOMENTS in needs else None,
            weighting=weighting,
        )

    @classmethod
    def total(cls, parts: Iterable["LanguageStatistics"]) -> "LanguageStatistics":
        """Return the statistics of all that `parts` have seen together."""
        first, *others = parts
        sums = [tensor.clone() if tensor is not None else None for tensor in first.tensors()]
        for other in others:
            for mine, more in zip(sums, other.tensors(), strict=True):
                if mine is not None and more is not None:
                    mine += more
        return first._with(sums)

    def tensors(self) -> tuple[Tensor | None, ...]:
        """Return the sums themselves, in the order of the fields."""
        return tuple(getattr(self, name) for name in SUMS)

    def to(self, device: torch.device) -> "LanguageStatistics":
        """Return the same on another device."""
        return self._with([None if tensor is None else tensor.to(device) for tensor in self.tensors()])

    def _with(self, tensors: Sequence[Tensor | None]) -> "LanguageStatistics":
        return replace(self, **dict(zip(SUMS, tensors, strict=True)))  # type: ignore[arg-type]

    def add(self, sums: SequenceSums, languages: Int[Tensor, " B"]) -> None:
        """Add a batch whose sequence `b` is in language `languages[b]`."""
        add_by_language(self.sum_squares, languages, sums.squares)
        add_by_language(self.tokens, languages, torch.full_like(languages, sums.tokens))
        for mine, seen in (
            (self.positive, sums.positive),
            (self.nonzero, sums.nonzero),
            (self.sum_values, sums.values),
        ):
            if mine is not None and seen is not None:
                add_by_language(mine, languages, seen)
        if self.second_moment is not None and sums.second_moment is not None:
            add_upper(self.second_moment, sums.second_moment.to(self.second_moment))
        if self.cross_moment is not None and sums.cross_moment is not None:
            self.cross_moment += sums.cross_moment.to(self.cross_moment)

    def complete(self) -> None:
        """Fill in the half of the second moment that is the mirror image of the other, when all has been added."""
        if self.second_moment is not None:
            mirror(self.second_moment)

    @property
    def finite(self) -> Bool[Tensor, ""]:
        """Whether all inputs were finite, and small enough for second moments in float32."""
        found: Tensor = torch.isfinite(self.sum_squares).all()
        if self.second_moment is not None:  # of which the diagonal is largest
            found = found & torch.isfinite(self.second_moment.diagonal()).all()
        return found

    @property
    def languages(self) -> int:
        """The number of languages."""
        return self.sum_squares.shape[0]

    @property
    def weights(self) -> Float[Tensor, " L"]:
        """The weight `w_l` of each token of language l, in float64; of a language that is never active, zero.

        One for each under uniform weights; those that are given; or, balanced, these times `in / Σ_j q_lj`.
        """
        weights = self.weighting.tensor(self.languages, self.tokens.device)
        if not self.weighting.balanced:
            return weights
        trace = self.sum_squares.mean(dim=1)
        return torch.where(trace > 0, weights / trace, 0)

    @property
    def votes(self) -> Float[Tensor, " L"]:
        """The weight of each language in a mean over languages, in float32; zero for one without a token here.

        An expert need not meet every language.
        """
        votes = (self.tokens > 0).float()
        if self.weighting.given is None:
            return votes
        return votes * self.weighting.tensor(self.languages, votes.device).float()


SUMS = tuple(each.name for each in fields(LanguageStatistics) if each.name != "weighting")
"""The names of what is summed."""


def pooled(statistics: LanguageStatistics, sums: Float[Tensor, "L ..."]) -> Float[Tensor, "..."]:
    """Return `Σ_l w_l s_l` of sums per language."""
    if statistics.weighting.uniform:
        return sums.sum(dim=0)
    total: Tensor = torch.tensordot(statistics.weights, sums.double(), dims=1)
    return total


def pooled_norm(statistics: LanguageStatistics) -> Float[Tensor, " I"]:
    """Return `‖X_j‖₂ = sqrt(Σ_l w_l q_lj)` over all tokens of all languages (Wanda, eq. 1, where each w_l is one)."""
    return pooled(statistics, statistics.sum_squares).sqrt().float()


def mean_and_variance(statistics: LanguageStatistics) -> tuple[Float[Tensor, " I"], Float[Tensor, " I"]]:
    """Return the mean and the population variance of each input over all weighted tokens."""
    assert statistics.sum_values is not None, "needs = Needs.MEANS"
    tokens = pooled(statistics, statistics.tokens).double().clamp(min=torch.finfo(torch.float64).tiny)
    mean = pooled(statistics, statistics.sum_values) / tokens
    variance = pooled(statistics, statistics.sum_squares) / tokens - mean.square()
    return mean.float(), variance.clamp(min=0).float()


def language_root_mean_square(statistics: LanguageStatistics) -> Float[Tensor, "L I"]:
    """Return the activation profiles `a_lj = sqrt(q_lj / N_l)`; zero for a language without tokens."""
    return (statistics.sum_squares / statistics.tokens.clamp(min=1)[:, None]).sqrt().float()


def activation_probability(statistics: LanguageStatistics) -> Float[Tensor, "L I"]:
    """Return `p_lj = c_lj / N_l`, the share of tokens on which a feature is positive (LAPE, Tang et al. 2024)."""
    assert statistics.positive is not None, "needs = Needs.COUNTS"
    return (statistics.positive.double() / statistics.tokens.clamp(min=1)[:, None]).float()
