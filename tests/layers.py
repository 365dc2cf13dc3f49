"""Single layers for tests of solvers: weights, inputs that correlate, and what a pruner would hand over."""

import torch
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jaxtyping import Bool, Float
from selection import quota
from torch import Tensor

from mwanda.patterns import Pattern
from mwanda.patterns.base import ComparisonGroup
from mwanda.patterns.n_of_m import NOfM
from mwanda.patterns.unstructured import Unstructured
from mwanda.solvers import Budget, Layer
from mwanda.statistics import LanguageStatistics, Needs, SequenceSums


UNSTRUCTURED = Unstructured()
PATTERNS: dict[str, Pattern] = {"unstructured": UNSTRUCTURED, "2of4": NOfM(2, 4), "4of8": NOfM(4, 8)}


def statistics_of(
    inputs: Float[Tensor, "N in"], languages: int = 1, needs: Needs = Needs.SECOND_MOMENTS
) -> LanguageStatistics:
    """Return the statistics of inputs, which are divided into languages of one size."""
    statistics = LanguageStatistics.zeros(languages, inputs.shape[1], needs=needs)
    for language, part in enumerate(inputs.chunk(languages)):
        statistics.add(SequenceSums.of(part[None], needs), torch.tensor([language]))
    return statistics


def correlated_inputs(tokens: int, features: int, seed: int = 0) -> Float[Tensor, "N in"]:
    """Return inputs that say much about each other."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, max(1, features // 2), generator=generator)
    mixing = torch.randn(hidden.shape[1], features, generator=generator)
    return hidden @ mixing + 0.3 * torch.randn(tokens, features, generator=generator)


def random_weight(rows: int, features: int, seed: int = 0) -> Float[Tensor, "out in"]:
    """Return weights without a zero."""
    return torch.randn(rows, features, generator=torch.Generator().manual_seed(1000 + seed))


def layer(
    weight: Float[Tensor, "out in"],
    inputs: Float[Tensor, "N in"],
    pattern: Pattern = UNSTRUCTURED,
    sparsity: float = 0.5,
    group: ComparisonGroup = "row",
    needs: Needs = Needs.SECOND_MOMENTS,
) -> Layer:
    """Return what a pruner would hand to a solver, with Wanda's scores."""
    statistics = statistics_of(inputs, needs=needs)
    share = quota(pattern, weight == 0, sparsity, group)
    budget = Budget(share.planned, share.prune_per_group, pattern.cell, group)
    return Layer(weight, statistics, budget, weight.abs().float() * inputs.float().norm(dim=0))


def errors(before: Tensor, after: Tensor, gram: Tensor) -> Float[Tensor, " out"]:
    """Return `(w − v) G (w − v)ᵀ` of each row, in float64."""
    moved = before.double() - after.double()
    return torch.einsum("oi,ij,oj->o", moved, gram.double(), moved)


@st.composite
def matrices(draw: st.DrawFn, cell: int = 1) -> tuple[Tensor, Tensor]:
    """Draw a weight matrix with zeros anywhere, of any size, and inputs some of which are never active."""
    rows, features, tokens = draw(st.integers(1, 6)), cell * draw(st.integers(1, 20 // cell)), draw(st.integers(1, 8))
    # A narrow choice makes ties and cancellations; 1e-45 is the smallest number that is not zero.
    values = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-45]) | st.floats(-10, 10, width=32)
    weight = torch.from_numpy(draw(arrays("float32", (rows, features), elements=values)))
    inputs = torch.from_numpy(draw(arrays("float32", (tokens, features), elements=values)))
    dead = torch.tensor(draw(st.lists(st.booleans(), min_size=features, max_size=features)))
    silent = torch.tensor(draw(st.lists(st.booleans(), min_size=features, max_size=features)))
    return weight.masked_fill(dead & (draw(st.booleans())), 0), inputs.masked_fill(silent, 0)


def zeros_of_groups(found: Tensor, budget: Budget) -> Tensor:
    """Return how many zeros (or marks) each comparison group holds."""
    return budget.groups(found).sum(dim=1)


def mask_of(found: Tensor) -> Bool[Tensor, "out in"]:
    """Return where a solver's answer, a mask or weights, is zero."""
    return found if found.dtype == torch.bool else found == 0
