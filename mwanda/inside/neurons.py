"""Language-specific neurons: language activation probability entropy (LAPE, Tang et al., ACL 2024)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class LanguageNeurons:
    """The neurons that LAPE selects, with the languages that each is specific to.

    Args:
        chosen: their numbers, lowest entropy first.
        entropy: of each of them, in nats.
        languages: those that each is specific to.
        bar: the activation probability above which a neuron is specific to a language.
    """

    chosen: Int[Tensor, " K"]
    entropy: Float[Tensor, " K"]
    languages: Bool[Tensor, "K L"]
    bar: float


def entropy(probabilities: Float[Tensor, "L N"]) -> Float[Tensor, " N"]:
    """Return `−Σ_l p'_l log p'_l`, `p' = p / Σ_l p`, in nats; infinite for a neuron that is never active."""
    total = probabilities.double().sum(dim=0)
    shares = probabilities.double() / total.clamp(min=torch.finfo(torch.float64).tiny)
    return torch.where(total > 0, torch.special.entr(shares).sum(dim=0), torch.inf)


def language_neurons(
    probabilities: Float[Tensor, "L N"], share: float = 0.01, quantile: float = 0.95
) -> LanguageNeurons:
    """Return the `share` of all neurons with the lowest entropy, of those that a language activates often.

    Often: with a probability above the `quantile` of the probabilities of all neurons in all languages; to these
    languages the neuron is specific. All neurons of a model are judged together, as in the paper.

    Args:
        probabilities: the share of each language's tokens on which a neuron is active.
        share: of the neurons.
        quantile: of the probabilities.
    """
    flat = probabilities.flatten().double()
    bar = float(flat.kthvalue(max(1, round(quantile * flat.numel()))).values)
    often = probabilities.double() > bar
    values = torch.where(often.any(dim=0), entropy(probabilities), torch.inf)
    count = min(int(share * values.numel() * (1 + 1e-12)), int(torch.isfinite(values).sum()))
    order = torch.argsort(values, stable=True)[:count]
    return LanguageNeurons(order, values[order], often[:, order].T, bar)
