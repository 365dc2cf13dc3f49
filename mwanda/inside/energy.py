"""The activation energy that a block loses when its weights are pruned."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass
class Energy:
    """Sums of squares per language: of an error, and of the signal that it is relative to."""

    error: Float[Tensor, " L"]
    whole: Float[Tensor, " L"]

    @classmethod
    def zeros(cls, languages: int) -> "Energy":
        """Return sums over nothing."""
        return cls(torch.zeros(languages, dtype=torch.float64), torch.zeros(languages, dtype=torch.float64))

    def add(self, error: Float[Tensor, "B T H"], whole: Float[Tensor, "B T H"], languages: Int[Tensor, " B"]) -> None:
        """Add a batch whose sequence `b` is in language `languages[b]`."""
        self.error.index_add_(0, languages.cpu(), _squares(error))
        self.whole.index_add_(0, languages.cpu(), _squares(whole))

    def share(self) -> Float[Tensor, " L"]:
        """Return `Σ_t ‖error_t‖² / Σ_t ‖whole_t‖²`; not a number for a language without tokens."""
        return self.error / self.whole


def _squares(values: Float[Tensor, "B T H"]) -> Float[Tensor, " B"]:
    return values.float().square().sum(dim=(1, 2), dtype=torch.float64).cpu()
