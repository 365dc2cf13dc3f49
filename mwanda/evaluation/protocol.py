"""The perplexity protocol: everything that a perplexity depends on besides model and text, under a name and a hash."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Protocol:
    """How text becomes scored tokens.

    Args:
        window: the most tokens the model sees at once, besides the start token.
        stride: how many tokens each window scores; what is left of the window is context.
        start_token: lead every window with the token that starts a document.
        join: what stands between two sentences; sentences of a language form one document.
        sentences: how many sentences of the split are taken, the first ones; None for all.
        loss: the precision of the log-probabilities.
        name: changes when the meaning of any of this changes.
    """

    window: int = 512
    stride: int = 512
    start_token: bool = True
    join: str = "\n"
    sentences: int | None = None
    loss: str = "float32"
    split: str = "evaluation"
    name: str = "document/1"

    @property
    def hash(self) -> str:
        """A short digest; perplexities under different hashes are not comparable."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Window:
    """Tokens to feed, of which the last `scored` are scored, the first of these being token `first` of the text."""

    tokens: tuple[int, ...]
    scored: int
    first: int


def windows(tokens: Sequence[int], window: int, stride: int, start: int | None) -> list[Window]:
    """Cut `tokens` into windows that score every token exactly once.

    Without a start token nothing predicts the very first token, and it is not scored; a later window without context
    is led by the token before it.
    """
    made = []
    for begin in range(0, len(tokens), stride):
        end = min(begin + stride, len(tokens))
        context = max(0, min(end - window, begin if start is not None else begin - 1))
        lead = () if start is None else (start,)
        unscored = 1 if start is None and context == begin else 0
        if end - begin > unscored:
            body = tuple(tokens[context:end])
            made.append(Window(lead + body, end - begin - unscored, begin + unscored))
    return made
