"""Statistics of all experts of a mixture, added to together: for each of them alone a call costs more than its work.

Shapes: E experts, L languages, B sequences, T tokens per sequence, k choices of a token, I input features.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mwanda.kernels.lowest import AT_ONCE
from mwanda.kernels.trial import passes
from mwanda.statistics.language import RUN, SUMS, LanguageStatistics, Needs
from mwanda.statistics.weights import LanguageWeights


Sums = Callable[[Callable[[Tensor], Tensor]], Float[Tensor, "E B I"]]
"""Returns the sums, for each expert and sequence, of what a function makes of each input."""


class ExpertStatistics:
    """Language statistics of E experts in one piece of memory, of which `parts` are views.

    Nothing is waited for, and every sum is made in one fixed order, so that two runs have the same bits.
    """

    def __init__(
        self,
        experts: int,
        languages: int,
        features: int,
        device: torch.device,
        needs: Needs,
        weighting: LanguageWeights,
    ):
        self._all = LanguageStatistics.zeros(experts * languages, features, device, needs, weighting)
        self._shape = experts, languages

    @property
    def parts(self) -> list[LanguageStatistics]:
        """The statistics of each expert."""
        sums = {name: getattr(self._all, name) for name in SUMS}
        split = {name: each.view(*self._shape, *each.shape[1:]) for name, each in sums.items() if each is not None}
        return [
            replace(self._all, **{name: each[expert] for name, each in split.items()})
            for expert in range(self._shape[0])
        ]

    def add(
        self, inputs: Float[Tensor, "N I"], chosen: Int[Tensor, "B T k"], languages: Int[Tensor, " B"], in_order: bool
    ) -> None:
        """Add the inputs of all tokens or, `in_order`, one for each choice, sorted by expert and then by token."""
        sequences, length, _ = chosen.shape
        numbers = torch.arange(self._shape[0], device=chosen.device)
        sent = (chosen[..., None] == numbers).sum(dim=2)  # how often each token is sent to each expert
        counts = sent.sum(dim=1).T.contiguous()
        sums = _segments(inputs, counts) if in_order else _products(inputs.view(sequences, length, -1), sent.float())
        belongs = (torch.arange(self._shape[1], device=languages.device)[:, None] == languages).double()

        def add(total: Tensor | None, make: Callable[[Tensor], Tensor]) -> None:
            if total is not None:
                total.view(*self._shape, -1).add_((belongs @ sums(make)).to(total.dtype))

        add(self._all.sum_squares, lambda values: values.square())
        add(self._all.positive, lambda values: (values > 0).to(values))
        add(self._all.nonzero, lambda values: (values != 0).to(values))
        add(self._all.sum_values, lambda values: values)
        self._all.tokens.view(self._shape).add_((counts.double() @ belongs.T).long())


def _products(inputs: Float[Tensor, "B T I"], sent: Float[Tensor, "B T E"]) -> Sums:
    """Sum over tokens by products with how often each is sent, in float32 over runs of tokens and then in float64."""

    def sums(make: Callable[[Tensor], Tensor]) -> Tensor:
        runs = zip(inputs.split(RUN, dim=1), sent.split(RUN, dim=1), strict=True)
        total = sum(torch.bmm(there.mT, make(part.float())).double() for part, there in runs)
        assert isinstance(total, Tensor)
        return total.transpose(0, 1)

    return sums


def _segments(rows: Float[Tensor, "S I"], counts: Int[Tensor, "E B"]) -> Sums:
    """Sum over rows that follow each other, in float64, some features at a time."""
    width = max(1, AT_ONCE // max(1, len(rows)))

    def sums(make: Callable[[Tensor], Tensor]) -> Tensor:
        parts = [
            torch.segment_reduce(make(part.double()).contiguous(), "sum", lengths=counts.flatten(), axis=0, unsafe=True)
            for part in rows.split(width, dim=1)
        ]
        return torch.cat(parts, dim=1).view(*counts.shape, -1)

    return sums


@cache
def agrees(device: torch.device) -> bool:
    """Return whether the device sums over rows that follow each other, some of them none, as each sum alone does."""
    rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)).to(device)
    counts = torch.tensor([[17, 0], [3, 20]]).to(device)  # one has none
    parts = rows.double()[:17], rows.double()[:0], rows.double()[17:20], rows.double()[20:]
    expected = torch.stack([part.sum(dim=0) for part in parts]).view(2, 2, -1)

    def trial() -> str | None:
        found = _segments(rows, counts)(lambda values: values)
        return None if torch.allclose(found, expected) else "they differ"

    return passes(trial, f"sums of all experts in one go are not used on {device}")
