"""The LM head, whose vocabulary can be too large for its logits to be held.

Legend: N positions, D hidden size, V vocabulary, C a chunk of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mwanda.kernels.vocabulary import VOCABULARY_CHUNK, memory_for, product


@dataclass(frozen=True)
class OutputHead:
    """Logits are `softcap · tanh(z / softcap)` of `z = scale · (W h + b)`, or `z` itself without `softcap`.

    Args:
        weight: W.
        bias: b.
        scale: see above.
        softcap: see above.
    """

    weight: Float[Tensor, "V D"]
    bias: Float[Tensor, " V"] | None = None
    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, model: Any) -> "OutputHead | None":
        """Return the head as the configuration describes it, or None where there is none.

        Families scale or cap their logits in ways that no interface names: whoever uses it compares it with the model's
        own logits first.
        """
        get = getattr(model, "get_output_embeddings", None)
        layer = get() if get is not None else None
        weight = getattr(layer, "weight", None)
        if weight is None:
            return None
        config, divisor = model.config, getattr(model.config, "logits_scaling", None)
        scale = float(getattr(config, "logit_scale", None) or 1.0) / float(divisor or 1.0)
        softcap = getattr(config, "final_logit_softcapping", None)
        return cls(weight, getattr(layer, "bias", None), scale, softcap)

    @property
    def vocabulary(self) -> int:
        """The number of tokens."""
        return self.weight.shape[0]

    def chunks(self, hidden: Float[Tensor, "N D"], chunk: int = VOCABULARY_CHUNK) -> Iterator[Float[Tensor, "N C"]]:
        """Yield the logits of one chunk of the vocabulary after another, in the same memory: fresh pages cost time."""
        memory = memory_for(hidden, min(chunk, self.vocabulary))
        for begin in range(0, self.vocabulary, chunk):
            piece = product(hidden, self.weight[begin : begin + chunk], memory)
            yield self._shaped(piece, slice(begin, begin + chunk))

    def chunk(self, hidden: Float[Tensor, "N D"], begin: int, end: int) -> Float[Tensor, "N C"]:
        """Return the logits of the tokens from `begin` to before `end`."""
        return self._shaped((hidden @ self.weight[begin:end].T).float(), slice(begin, end))

    def of_tokens(self, hidden: Float[Tensor, "N D"], tokens: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Return the logit of one token at each position."""
        product = (hidden.float() * self.weight[tokens].float()).sum(dim=1)
        bias = None if self.bias is None else self.bias[tokens]
        return self._capped(self._scaled(product if bias is None else product + bias))

    def gradient(self, hidden: Float[Tensor, "N D"], tokens: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """Return the gradient of the logit of one token at each position with respect to the hidden state there."""
        rows = self.weight[tokens]
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32)) * self.scale
        if self.softcap is None:
            return rows
        ratio = self.of_tokens(hidden, tokens) / self.softcap
        return rows * (1 - ratio.square())[:, None].to(rows.dtype)

    def _shaped(self, piece: Float[Tensor, "N C"], tokens: slice) -> Float[Tensor, "N C"]:
        if self.bias is not None:
            piece += self.bias[tokens]
        return self._capped(self._scaled(piece))

    def _scaled(self, values: Tensor) -> Tensor:
        return values * self.scale if self.scale != 1.0 else values

    def _capped(self, values: Tensor) -> Tensor:
        return values if self.softcap is None else torch.tanh(values / self.softcap) * self.softcap


def agrees(
    head: OutputHead, hidden: Float[Tensor, "N D"], own: Float[Tensor, "N V"], tokens: Int[Tensor, " N"]
) -> bool:
    """Return whether the head gives each token the log-probability that the model's own logits give it."""
    if hidden.shape[1] != head.weight.shape[1] or own.shape[1] != head.vocabulary:
        return False
    place = head.weight.device
    expected = own.float().log_softmax(dim=1).to(place)[torch.arange(len(tokens)), tokens.to(place)]
    logits = head.chunk(hidden.to(place), 0, head.vocabulary)
    found = logits.log_softmax(dim=1)[torch.arange(len(tokens)), tokens.to(place)]
    tolerance = 1e-3 if head.weight.dtype in (torch.float32, torch.float64) else 5e-2
    return bool(torch.allclose(found, expected, rtol=tolerance, atol=tolerance))
