"""What a matrix's gradients and the weights that would be removed have to do with each other, sequence by sequence.

`⟨g, Δ⟩ = Σ_t δ_tᵀ Δ x_t`, where x is the input of the matrix, δ the gradient at its output and `g = Σ_t δ_t x_tᵀ` the
gradient of its weight; or, with each weight apart, `Σ_ij (g_ij Δ_ij)²`. Shapes: B sequences, T tokens per sequence, I
and O input and output features, K levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mwanda.criteria import Criterion
from mwanda.kernels import levels as by_level
from mwanda.kernels.lowest import CACHED
from mwanda.patterns import Pattern
from mwanda.statistics import LanguageStatistics


GRADIENTS_AT_ONCE = 1 << 21
"""Elements of weight gradients held at once on the CPU: a compromise between its cache and the cost of each product."""

GRADIENTS_ON_DEVICE = 1 << 26
"""Elements of weight gradients held at once elsewhere."""

GRADIENT_COSTS = 8
"""A weight gradient of one sequence costs as much as products with so many tokens, besides those of the sequence."""


def removal_levels(
    weight: Float[Tensor, "out in"],
    statistics: LanguageStatistics | None,
    criterion: Criterion,
    pattern: Pattern,
    levels: tuple[float, ...],
) -> Int[Tensor, "out in"]:
    """Return the index of the lowest level at which the criterion removes a weight, or `len(levels)` if at none.

    A weight that is removed at one level is removed at all higher ones. Of equal scores at a threshold all are removed.

    Args:
        weight: of one matrix.
        statistics: of its inputs, as the criterion needs them.
        criterion: scores weights.
        pattern: which weights compete, and how many of them are removed.
        levels: sparsities, rising.
    """
    zeros = weight == 0
    groups = pattern.groups(zeros, criterion.group)
    counts, size = groups.sum(dim=1).cpu(), groups.shape[1]
    scores = criterion.score(weight, statistics)
    if counts.any():  # these are removed first
        scores = scores.masked_fill(zeros, -1)
    ranked = pattern.groups(scores, criterion.group)
    quotas = [pattern.quota(counts, size, level).prune_per_group for level in levels]
    return _kept_above(ranked, quotas).view(weight.shape)


def _kept_above(scores: Float[Tensor, "groups size"], quotas: Sequence[int]) -> Int[Tensor, "groups size"]:
    """Return how many of the `quotas` lowest scores of its group each score is above; equals count alike."""
    if scores.device.type != "cpu" or scores.dtype not in (torch.float32, torch.float64):
        codes = torch.zeros_like(scores, dtype=torch.uint8)
        for quota in quotas:
            codes += scores > torch.kthvalue(scores, quota, dim=1, keepdim=True).values if quota else 1
        return codes
    values, kept = scores.numpy(), np.zeros(scores.shape, dtype=np.uint8)
    step = max(1, CACHED // values.shape[1])
    for first in range(0, len(values), step):
        part, out = values[first : first + step], kept[first : first + step]
        ordered = np.sort(part, axis=1)  # by vectors, which no partition at several places is
        for quota in quotas:
            out += part > ordered[:, quota - 1 : quota] if quota else np.uint8(1)
    return torch.from_numpy(kept)


@dataclass
class RowDamage:
    """Adds up what each row of a matrix has of the damage, `Σ_b w_b Σ_j (g_bij Δ_ij)²`.

    Args:
        total: in float64, to which more is added.
        level: index of the level at which Δ is removed.
        weights: of the sequences that come next.
    """

    total: Float[Tensor, " O"]
    level: int
    weights: Float[Tensor, " B"]

    def add_sums(self, sums: Float[Tensor, "B rows K"], part: slice) -> None:
        """Add some rows, given what each sequence has of them at every level."""
        self.total[part] += (self.weights.to(sums) @ sums[:, :, self.level]).double()

    def add(self, squares: Float[Tensor, "B W"], weight: Float[Tensor, "rows I"], gone: Tensor, part: slice) -> None:
        """Add some rows, given the squares of their gradients; `gone` says which of their weights are removed."""
        mean = (self.weights.to(squares) @ squares).view(weight.shape)
        self.total[part] += (mean * weight.to(mean).square() * gone).sum(dim=1).double()


def directional_products(
    inputs: Float[Tensor, "B T I"],
    gradients: Float[Tensor, "B T O"],
    weight: Float[Tensor, "O I"],
    codes: Int[Tensor, "O I"],
    levels: int,
    *,
    apart: bool = False,
    rows: RowDamage | None = None,
) -> Float[Tensor, "B K"]:
    """Return `⟨g_b, W removed at level k⟩` of each sequence b, in float64.

    The gradient of the weight is made of a few rows at a time, for one product serves all levels.

    Args:
        inputs: of the matrix.
        gradients: at its output.
        weight: W.
        codes: as `removal_levels` gives them.
        levels: K.
        apart: return the sum of the squares of the single weights' products instead.
        rows: where the damage of single rows is added to.
    """
    count, features = inputs.shape[0], inputs.shape[2]
    at_once = GRADIENTS_AT_ONCE if inputs.device.type == "cpu" else GRADIENTS_ON_DEVICE
    step = max(1, at_once // (count * features))
    total = torch.zeros(count, levels, dtype=torch.float64, device=inputs.device)
    for begin in range(0, weight.shape[0], step):
        part = slice(begin, begin + step)
        gradient = torch.bmm(gradients[:, :, part].transpose(1, 2), inputs)
        if apart and by_level.takes(gradient, weight[part], codes[part]):
            sums = by_level.squares_by_row(gradient, weight[part], codes[part], levels)
            total += sums.sum(dim=1, dtype=torch.float64)
            if rows is not None:
                rows.add_sums(sums, part)
            continue
        gradient = gradient.flatten(1)
        # In full precision, as half has no room for squares.
        gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
        squares = gradient.square_() if apart else gradient.square() if rows is not None else None
        total += _project(gradient, weight[part].to(gradient).square() if apart else weight[part], codes[part], levels)
        if rows is not None and squares is not None:
            rows.add(squares, weight[part], codes[part] <= rows.level, part)
    return total


def routed_products(
    inputs: Float[Tensor, "N I"],
    gradients: Float[Tensor, "N O"],
    sequences: Int[Tensor, " N"],
    count: int,
    weight: Float[Tensor, "O I"],
    codes: Int[Tensor, "O I"],
    levels: int,
    *,
    apart: bool = False,
    rows: RowDamage | None = None,
) -> Float[Tensor, "B K"]:
    """Return the same for the tokens that are sent to one expert.

    Args:
        inputs: of the expert's matrix, a token each.
        gradients: at its output.
        sequences: which sequence a token is of, rising.
        count: B.
        weight: W.
        codes: as `removal_levels` gives them.
        levels: K.
        apart: likewise.
        rows: likewise.
    """
    there, sizes = torch.unique_consecutive(sequences, return_counts=True)
    total = torch.zeros(count, levels, dtype=torch.float64, device=inputs.device)
    if not len(there):
        return total
    longest = int(sizes.max())
    if not apart and rows is None and len(there) * (longest + GRADIENT_COSTS) > levels * len(inputs):
        each = _products_by_token(inputs, gradients, weight, codes, levels)
        belongs = torch.arange(count, device=inputs.device)[:, None] == sequences
        return belongs.to(each) @ each
    row = torch.arange(len(there), device=inputs.device).repeat_interleave(sizes, output_size=len(inputs))
    place = torch.arange(len(inputs), device=inputs.device) - (sizes.cumsum(0) - sizes)[row]
    padded = [
        values.new_zeros(len(there), longest, values.shape[1]).index_put_((row, place), values)
        for values in (inputs, gradients)
    ]
    if rows is not None:
        rows = replace(rows, weights=rows.weights[there])
    total[there] = directional_products(padded[0], padded[1], weight, codes, levels, apart=apart, rows=rows)
    return total


def _project(
    gradient: Float[Tensor, "B W"],
    weight: Float[Tensor, "rows in"],
    codes: Int[Tensor, "rows in"],
    levels: int,
) -> Float[Tensor, "B K"]:
    """Return the products with what is removed at each level, given the gradient of a few rows."""
    gone = weight.new_empty(levels, *weight.shape)
    for level, part in enumerate(gone):
        torch.mul(weight, codes <= level, out=part)
    return (gone.flatten(1).to(gradient) @ gradient.T).T.double()


def _products_by_token(
    inputs: Float[Tensor, "N I"],
    gradients: Float[Tensor, "N O"],
    weight: Float[Tensor, "O I"],
    codes: Int[Tensor, "O I"],
    levels: int,
) -> Float[Tensor, "N K"]:
    """Return `δ_tᵀ Δ x_t` of each token, by one product for each level: cheaper where a sequence has few tokens."""
    wide = torch.promote_types(gradients.dtype, torch.float32)
    columns = [
        (gradients.to(wide) * (inputs @ (weight * (codes <= level)).T)).sum(dim=1, dtype=torch.float64)
        for level in range(levels)
    ]
    return torch.stack(columns, dim=1)
