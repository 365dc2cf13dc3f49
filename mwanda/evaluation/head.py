"""Next-token losses of a model whose vocabulary is too large for its logits to be held.

Legend: N positions, D hidden size, V vocabulary, C a chunk of it.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mwanda.kernels.normalisation import fused_norms
from mwanda.kernels.vocabulary import add_exponentials, chunk_for
from mwanda.models.head import OutputHead
from mwanda.system.device import sent


def losses(
    hidden: Float[Tensor, "N D"],
    targets: Int[Tensor, " N"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, " V"] | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
    chunk: int | None = None,
) -> Float[Tensor, " N"]:
    """Return `−log softmax(logits)[target]` in float32, on the CPU; no more than `chunk` logits of a position are held.

    It is `log Σ exp(logit − logit of the target)`, which needs no largest logit: the target's own term is 1, so that
    no sum vanishes, and one that overflows (a loss above 88) is made again with the largest logit. Where the target's
    logit is infinite its share of the probability is unknown, and the loss is infinite as well.

    A device is waited for once, when the losses are fetched, and again only where some are made again.
    """
    chunk = chunk or chunk_for(hidden.device, len(hidden))
    head = OutputHead(weight, bias, scale, softcap)
    target = head.of_tokens(hidden, targets)[:, None]
    total = torch.zeros_like(target)
    for piece in head.chunks(hidden, chunk):
        add_exponentials(piece, target, total)
    found = total.log_().squeeze(1).cpu()
    lost = ~torch.isfinite(found)
    if bool(lost.any()):
        places = lost.nonzero().squeeze(1).to(hidden.device)
        parts = [part.logsumexp(dim=1) for part in head.chunks(hidden[places], chunk)]
        found[lost] = _loss(torch.logsumexp(torch.stack(parts), dim=0), target[places, 0]).cpu()
    return found


def _loss(total: Float[Tensor, " N"], target: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Return the loss of targets, given the logarithm of what all logits sum to."""
    return torch.where(target == math.inf, math.inf, total - target)


class Scorer:
    """Token losses of windows, by chunks of the vocabulary where that equals the model's own output head.

    Families scale or cap their logits in ways that no interface names. So the fast way is tried once against the
    model's own forward pass, and the latter is used when they disagree. So are norms in one pass (`faster_norms`).
    """

    def __init__(self, model: nn.Module):
        self._model = model
        self._decoder = getattr(model, "base_model", model)
        self._head = OutputHead.of(model)
        self.device = model.get_input_embeddings().weight.device  # type: ignore[operator]
        self.gives_numbers = True
        self.fast = self._agrees()

    @contextmanager
    def faster_norms(self) -> Iterator[None]:
        """Have an accelerator do the model's norms in one pass meanwhile, if the fast way is taken: it was tried so."""
        with fused_norms(self._model) if self.fast else nullcontext():
            yield

    @torch.no_grad()
    def score(self, tokens: Int[Tensor, "B T"], scored: list[int], lengths: list[int]) -> list[Float[Tensor, " S"]]:
        """Return, on the CPU, for each row the losses of its last `scored` tokens of its first `lengths` tokens.

        Rows are padded on the right, where a causal model cannot look; padded positions reach no loss.
        """
        spans = [slice(length - count - 1, length - 1) for count, length in zip(scored, lengths, strict=True)]
        width, tokens = tokens.shape[1], sent(tokens, self.device)
        if self.fast:
            places = torch.cat(
                [torch.arange(row * width + s.start, row * width + s.stop) for row, s in enumerate(spans)]
            )
            places = sent(places, self.device)
            targets = tokens.flatten()[places + 1]
            states = self._decoder(input_ids=tokens, use_cache=False).last_hidden_state.flatten(0, 1)
            found = self._losses(states[places.to(states.device)], targets)
        else:
            rows = []
            for row, span in zip(tokens, spans, strict=True):
                logits = self._model(input_ids=row[None], use_cache=False).logits[0, span].float()
                expected = row[span.start + 1 : span.stop + 1].to(logits.device)
                # Unlike cross entropy, this stays a number where the logit of another token is infinite.
                rows.append(_loss(logits.logsumexp(dim=1), logits.gather(1, expected[:, None])[:, 0]))
            found = torch.cat(rows)
        return list(found.cpu().split(scored))  # in one copy: an accelerator is waited for each time

    def _losses(self, hidden: Float[Tensor, "N D"], targets: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Return losses, where the head is: a model that is spread over GPUs ends on another than it begins."""
        head = self._head
        assert head is not None
        place = head.weight.device
        return losses(hidden.to(place), targets.to(place), head.weight, head.bias, head.scale, head.softcap)

    @torch.no_grad()
    def _agrees(self) -> bool:
        if self._head is None:
            return False
        tokens = torch.arange(8, device=self.device)[None] % self._head.vocabulary
        own = self._model(input_ids=tokens, use_cache=False).logits[0, :-1].float()
        self.gives_numbers = not bool(own.isnan().any())
        with fused_norms(self._model):
            states = self._decoder(input_ids=tokens, use_cache=False).last_hidden_state
        if states.shape[-1] != self._head.weight.shape[1]:
            return False
        expected = torch.nn.functional.cross_entropy(own, tokens[0, 1:].to(own.device), reduction="none").cpu()
        found = self._losses(states[0, :-1], tokens[0, 1:])
        tolerance = 1e-3 if self._head.weight.dtype == torch.float32 else 5e-2
        return bool(torch.allclose(found, expected, rtol=tolerance, atol=tolerance)) and math.isfinite(float(found[0]))
