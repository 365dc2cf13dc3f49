"""How much each language, and each token, counts in what is pooled over them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class LanguageWeights:
    """Weights of languages in every pooled statistic: norms, means over languages and the Gram matrix.

    A weight of two counts a language as if it stood twice in the calibration set, with all its tokens.

    Args:
        given: the weight of each language, in the order of the calibration set; None weighs all of them one.
        balanced: moreover scale each language's Gram matrix to unit mean trace, so that neither more tokens nor louder
            activations of a language count for more: `G = Σ_l given_l · G_l · in / tr(G_l)`.
        unit_tokens: every input vector is scaled to a root mean square of one before anything is summed, so that no
            token counts for more because its activations are large.
        moment_share: of the tokens of a sequence from which correlations in its second moment come.
    """

    given: tuple[float, ...] | None = None
    balanced: bool = False
    unit_tokens: bool = False
    moment_share: float = 1.0

    @property
    def uniform(self) -> bool:
        """Whether every language counts the same."""
        return self.given is None and not self.balanced

    def tensor(self, languages: int, device: torch.device) -> Float[Tensor, " L"]:
        """Return the given weights in float64."""
        if self.given is None:
            return torch.ones(languages, dtype=torch.float64, device=device)
        return torch.tensor(self.given, dtype=torch.float64, device=device)


UNIFORM = LanguageWeights()
