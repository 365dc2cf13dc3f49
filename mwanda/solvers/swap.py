"""1-swap refinement: exchanges a pruned weight for a kept one wherever that lowers the output error of the matrix."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mwanda.kernels.lowest import rows_at_once
from mwanda.kernels.places import entries, infinite_unless, place_of_lowest, places_of_lowest
from mwanda.patterns.base import ComparisonGroup
from mwanda.solvers.base import Layer
from mwanda.solvers.gram import gram_of, regularised
from mwanda.statistics import Needs


AT_ONCE = 1 << 20
"""Weights whose rows are worked on together, at least: a call for fewer costs more than its work."""

CHECKED = 8
"""Exchanges after which it is looked whether any row still has one: a device is waited for each time."""

ROUNDING = 1e-6
"""Of the energy that a row has lost: how far float32 may be off in the change by an exchange."""


@dataclass(frozen=True)
class Swap:
    """Refines the mask of any scores by exchanges within a row (1-swap, after SparseSwaps, arXiv 2512.10922).

    With G the Gram matrix, r the pruned part of a row w and c = G r, restoring weight j and pruning weight k instead
    changes the row's squared error `rᵀ G r` by exactly

        Δ_jk = (w_j² G_jj − 2 w_j c_j) + (w_k² G_kk + 2 w_k c_k) − 2 w_j w_k G_jk.

    In each round every row picks the `pool` pruned weights that are cheapest to restore and the `pool` kept ones that
    are cheapest to prune, and carries out the best exchange among them again and again, with c kept exact within the
    pool, until none lowers the error. Then all of c is brought up to date. Under N:M both weights of an exchange lie in
    one cell.

    Args:
        rounds: at most; a row in which a round found nothing is left out of those that follow.
        pool: weights of either kind that are looked at together. With all of them the end is a 1-swap optimum: no
            single exchange lowers the error any more.
        shrinkage: α of `regularised`, how far the Gram matrix is shrunk to its diagonal.
        damping: λ of `regularised`.
        tolerance: an exchange must lower a row's error by more than this share of it.
    """

    rounds: Annotated[int, Gt(0)] = 4
    pool: Annotated[int, Gt(0)] = 16
    shrinkage: Annotated[float, Ge(0), Le(1)] = 0.5
    damping: Annotated[float, Ge(0)] = 0.0
    tolerance: Annotated[float, Ge(0)] = 1e-4
    needs: ClassVar[Needs] = Needs.SECOND_MOMENTS
    takes_scores: ClassVar[bool] = True
    group: ClassVar[ComparisonGroup | None] = None

    def select(self, layer: Layer) -> Bool[Tensor, "out in"]:
        """Return the refined mask; every row, or cell, has as many zeros as before."""
        gram = regularised(gram_of(layer.statistics), self.shrinkage, self.damping)
        return self.refine(layer.weight.float(), layer.lowest_scores(), gram, layer.budget.cell)

    def refine(
        self,
        weight: Float[Tensor, "out in"],
        pruned: Bool[Tensor, "out in"],
        gram: Float[Tensor, "in in"],
        cell: int | None = None,
    ) -> Bool[Tensor, "out in"]:
        """Return `pruned` after exchanges that each lower a row's `rᵀ G r`; weights that are zero take no part."""
        refined = pruned.clone()
        rows = torch.arange(len(weight), device=weight.device)
        together = max(rows_at_once(weight), AT_ONCE // weight.shape[1])
        lost = (weight * refined) @ gram
        for _ in range(self.rounds):
            changed = []
            for some in rows.split(together):
                mask, correlation = refined[some], lost[some]
                pool = _Pool.of(weight[some], mask, correlation, gram, cell, self.pool)
                swapped = pool.exchange(mask, self.tolerance)
                refined[some] = mask
                lost[some] = correlation + pool.change_of_correlation(gram)
                changed.append(some[swapped])
            rows = torch.cat(changed)
            if not len(rows):
                break
        return refined


@dataclass
class _Pool:
    """Candidates of some rows: P pruned weights that may be restored, and P kept ones that may be pruned.

    Args:
        restored: their inputs; `restoring` is what bringing each back alone would add to the error, infinite where
            there is no such weight.
        dropped, dropping: the same of the kept ones.
        candidates: the inputs of all 2P, those to restore first; `values` are their weights.
        products: `2 w_i w_k G_ik` of them.
        moved: what was added to the pruned part r of the row at each.
        allowed: which pairs may be exchanged.
        error: of each row.
        noise: an exchange that promises less may be rounding.
    """

    restored: Int[Tensor, "rows P"]
    dropped: Int[Tensor, "rows P"]
    restoring: Float[Tensor, "rows P"]
    dropping: Float[Tensor, "rows P"]
    candidates: Int[Tensor, "rows 2P"]
    values: Float[Tensor, "rows 2P"]
    products: Float[Tensor, "rows 2P 2P"]
    moved: Float[Tensor, "rows 2P"]
    allowed: Bool[Tensor, "rows P P"] | None
    error: Float[Tensor, " rows"]
    noise: Float[Tensor, " rows"]

    @classmethod
    def of(
        cls,
        weight: Float[Tensor, "rows in"],
        pruned: Bool[Tensor, "rows in"],
        correlation: Float[Tensor, "rows in"],
        gram: Float[Tensor, "in in"],
        cell: int | None,
        size: int,
    ) -> "_Pool":
        """Return the candidates, given the correlation c of each input with what the row has lost."""
        interaction = (weight * correlation).mul_(2)
        energy = weight.square().mul_(gram.diagonal())
        gone, present = pruned.float(), weight != 0
        restoring = (energy - interaction).add_(infinite_unless(pruned & present))
        dropping = (energy + interaction).add_(infinite_unless(~pruned & present))
        size = min(size, weight.shape[1])
        if cell is None:
            restored, dropped = places_of_lowest(restoring, size), places_of_lowest(dropping, size)
            allowed = None
        else:
            best, partner = _best_partner(weight, restoring, dropping, gram, cell)
            restored = places_of_lowest(best, size)
            dropped = partner.gather(1, restored)
            allowed = restored[:, :, None] // cell == dropped[:, None, :] // cell
        together = torch.cat([restored, dropped], dim=1)
        values = weight.gather(1, together)
        products = entries(gram, together)
        products.mul_(values[:, :, None]).mul_(2 * values[:, None, :])
        return cls(
            restored,
            dropped,
            restoring.gather(1, restored),
            dropping.gather(1, dropped),
            together,
            values,
            products,
            torch.zeros_like(values),
            allowed,
            error=(interaction * gone).sum(dim=1) / 2,
            noise=ROUNDING * (energy * gone).sum(dim=1),
        )

    def exchange(self, pruned: Bool[Tensor, "rows in"], tolerance: float) -> Bool[Tensor, " rows"]:
        """Carry out exchanges in `pruned`, the best first; return which rows had any."""
        size = self.restored.shape[1]
        pairs = self.products[:, :size, size:]
        if self.allowed is not None:
            pairs = pairs.masked_fill(~self.allowed, -torch.inf)
        swapped = torch.zeros_like(pruned[:, 0])
        for number in range(size):
            change = (self.restoring[:, :, None] + self.dropping[:, None, :]).sub_(pairs).flatten(1)
            place = place_of_lowest(change)
            gain, place = change.gather(1, place)[:, 0], place[:, 0]
            accepted = gain < -(tolerance * self.error + self.noise)
            if (number % CHECKED == 0 or change.device.type == "cpu") and not accepted.any():
                break
            self._carry_out(place // size, place % size, accepted, pruned)
            self.error += torch.where(accepted, gain, 0)
            swapped |= accepted
        return swapped

    def change_of_correlation(self, gram: Float[Tensor, "in in"]) -> Float[Tensor, "rows in"]:
        """Return `G Δr` of what was exchanged: a few rows of G, in place of a product with all of it."""
        return torch.nn.functional.embedding_bag(self.candidates, gram, per_sample_weights=self.moved, mode="sum")

    def _carry_out(
        self,
        first: Int[Tensor, " rows"],
        second: Int[Tensor, " rows"],
        accepted: Bool[Tensor, " rows"],
        pruned: Bool[Tensor, "rows in"],
    ) -> None:
        """Exchange one pair of candidates in each row that accepts it, and bring the others up to date."""
        size, numbers = self.restored.shape[1], torch.arange(len(accepted), device=accepted.device)
        for place, sign in ((first, -1), (size + second, 1)):
            column = place[:, None]
            self.moved.scatter_add_(1, column, sign * self.values.gather(1, column) * accepted[:, None])
        moved = self.products[numbers, size + second] - self.products[numbers, first]
        moved.mul_(accepted[:, None])
        self.restoring -= moved[:, :size]
        self.dropping += moved[:, size:]
        # Both are done with in this pool. Under N:M several entries may be the same kept weight.
        restored, dropped = self.restored.gather(1, first[:, None]), self.dropped.gather(1, second[:, None])
        self.restoring.masked_fill_((self.restored == restored) & accepted[:, None], torch.inf)
        self.dropping.masked_fill_((self.dropped == dropped) & accepted[:, None], torch.inf)
        pruned.scatter_(1, restored, pruned.gather(1, restored) & ~accepted[:, None])
        pruned.scatter_(1, dropped, pruned.gather(1, dropped) | accepted[:, None])


def _best_partner(
    weight: Float[Tensor, "rows in"],
    restoring: Float[Tensor, "rows in"],
    dropping: Float[Tensor, "rows in"],
    gram: Float[Tensor, "in in"],
    cell: int,
) -> tuple[Float[Tensor, "rows in"], Int[Tensor, "rows in"]]:
    """Return for each weight the change by its best exchange within its cell, and the kept weight of that exchange."""
    rows, inputs = weight.shape
    cells = inputs // cell
    within = gram.view(cells, cell, cells, cell).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    parts = weight.view(rows, cells, cell)
    products = 2 * parts[..., :, None] * parts[..., None, :] * within
    change = restoring.view(parts.shape)[..., :, None] + dropping.view(parts.shape)[..., None, :] - products
    best, place = change.min(dim=3)
    starts = torch.arange(0, inputs, cell, device=weight.device)[:, None]
    return best.view(rows, inputs), (place + starts).view(rows, inputs)
