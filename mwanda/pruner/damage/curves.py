"""What pruning each matrix alone would cost each language, from inner products with gradients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor


def level_of_rows(levels: int) -> int:
    """Return the index of the level at which the damage of rows is taken: the middle one."""
    return levels // 2


@dataclass(frozen=True)
class Damage:
    """`D_ml(s) = ¼ E[⟨g_m, Δ_m(s)⟩²] / P`, where g is the gradient of `Σ_t log p(y_t) − log p(y'_t)`.

    y and y' are two independent draws from the model's prediction at each of the P positions t of a sequence of
    language l. Their difference has twice the variance of the score of one draw and needs no mean over the vocabulary,
    so that this equals `½ E[⟨∇ Σ_t log p(y_t), Δ⟩²] / P`: the KL divergence of the pruned from the dense prediction to
    second order, in nats a token. Different positions are uncorrelated, as labels are drawn from the model itself.

    Args:
        matrices: their names.
        languages: of each sequence, as an index.
        levels: sparsities.
        positions: P.
        squares: `⟨g_m, Δ_m(s)⟩²` of each sequence, draw, matrix and level, or its part `Σ_ij (g_ij Δ_ij)²`. What is
            left out, products of two weights, has as many positive as negative terms, whose sum is small; they are most
            of what differs from sequence to sequence.
        rows: the damage of each row of each matrix, to a common factor, summed over sequences that are weighted by
            their language; empty where it was not asked for.
        rare: of each matrix those (itself among them) with which it shares its damage, where it is an expert that saw
            too few tokens to be judged by them alone.
    """

    matrices: tuple[str, ...]
    languages: Int[Tensor, " S"]
    levels: tuple[float, ...]
    positions: int
    squares: Float[Tensor, "S R M K"]
    rows: "Mapping[str, Float[Tensor, ' out']]" = field(default_factory=dict)
    rare: "tuple[tuple[str, tuple[str, ...]], ...]" = ()

    def curves(self) -> dict[str, Float[Tensor, "L K"]]:
        """Return the damage of each matrix by language and level."""
        squares = self.squares.mean(dim=1) / (4 * self.positions)
        found = by_language(squares, self.languages)
        index = {name: place for place, name in enumerate(self.matrices)}
        curves = {name: found[:, place] for name, place in index.items()}
        pooled = {name: found[:, [index[each] for each in siblings]].mean(dim=1) for name, siblings in self.rare}
        return curves | pooled


def by_language(values: Float[Tensor, "S ..."], languages: Int[Tensor, " S"]) -> Float[Tensor, "L ..."]:
    """Return the mean over the sequences of each language."""
    belongs = (torch.arange(int(languages.max()) + 1)[:, None] == languages).to(values)
    weights = belongs / belongs.sum(dim=1, keepdim=True)
    return torch.einsum("ls,s...->l...", weights, values)


def siblings_of(names: Sequence[str], rare: Sequence[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return, for each rare expert, all experts of its parameter: their names differ in the last part alone."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition(".")[0], []).append(name)
    return tuple((name, tuple(groups[name.rpartition(".")[0]])) for name in rare)
