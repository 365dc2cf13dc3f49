"""What one matrix's inputs look like in each language: sums that can be streamed and added.

Shapes: L languages, B sequences, T tokens per sequence, I input features.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class SequenceSums:
    """Sums over the tokens of each sequence of one batch, made once and shared by matrices with one input."""

    squares: Float[Tensor, "B I"]
    positive: Float[Tensor, "B I"]
    nonzero: Float[Tensor, "B I"]
    tokens: int

    @classmethod
    def of(cls, inputs: Float[Tensor, "B T I"]) -> "SequenceSums":
        """Reduce `inputs` over tokens in float32; a count of tokens is exact in float32 up to 2^24."""
        values = inputs.detach().float()
        return cls(
            squares=torch.linalg.vector_norm(values, dim=1).square_(),
            positive=values.gt(0).to(torch.float32).sum(dim=1),
            nonzero=values.ne(0).to(torch.float32).sum(dim=1),
            tokens=values.shape[1],
        )


@dataclass
class LanguageStatistics:
    """Per language and input feature: `q_lj`, the counts of positive and of non-zero inputs, and `N_l`.

    Sums are kept in float64 (counts in int64), so that neither the order nor the size of batches matters beyond
    the rounding of one sequence. Memory is independent of the number of tokens.
    """

    sum_squares: Float[Tensor, "L I"]
    positive: Int[Tensor, "L I"]
    nonzero: Int[Tensor, "L I"]
    tokens: Int[Tensor, " L"]

    @classmethod
    def zeros(cls, languages: int, features: int, device: torch.device | str = "cpu") -> "LanguageStatistics":
        """Return statistics that have seen nothing."""
        shape = (languages, features)
        return cls(
            sum_squares=torch.zeros(shape, dtype=torch.float64, device=device),
            positive=torch.zeros(shape, dtype=torch.int64, device=device),
            nonzero=torch.zeros(shape, dtype=torch.int64, device=device),
            tokens=torch.zeros(languages, dtype=torch.int64, device=device),
        )

    def add(self, sums: SequenceSums, languages: Int[Tensor, " B"]) -> None:
        """Add a batch whose sequence `b` is in language `languages[b]`."""
        self.sum_squares.index_add_(0, languages, sums.squares.double())
        self.positive.index_add_(0, languages, sums.positive.long())
        self.nonzero.index_add_(0, languages, sums.nonzero.long())
        self.tokens.index_add_(0, languages, torch.full_like(languages, sums.tokens))

    @property
    def languages(self) -> int:
        """The number of languages."""
        return self.sum_squares.shape[0]


def pooled_norm(statistics: LanguageStatistics) -> Float[Tensor, " I"]:
    """Return `‖X_j‖₂ = sqrt(Σ_l q_lj)` over all tokens of all languages (Wanda, eq. 1)."""
    return statistics.sum_squares.sum(dim=0).sqrt().float()


def language_root_mean_square(statistics: LanguageStatistics) -> Float[Tensor, "L I"]:
    """Return the activation profiles `a_lj = sqrt(q_lj / N_l)`."""
    return (statistics.sum_squares / statistics.tokens.clamp(min=1)[:, None]).sqrt().float()


def activation_probability(statistics: LanguageStatistics) -> Float[Tensor, "L I"]:
    """Return `p_lj = c_lj / N_l`, the share of tokens on which a feature is positive (LAPE, Tang et al. 2024)."""
    return (statistics.positive.double() / statistics.tokens.clamp(min=1)[:, None]).float()
