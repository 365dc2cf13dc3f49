"""The perplexity protocol: everything that a perplexity depends on besides model and text, under a name and a hash."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal


StartToken = Literal[True, "first", False]


@dataclass(frozen=True)
class Protocol:
    """The windows, stride and start token by which text is scored.

    Args:
        window: the most tokens the model sees at once to predict another one.
        stride: how many tokens each window scores; what is left of the window is context.
        start_token: what leads a window: the token that starts a document (`true`); that token where the window reaches
            back to the start of the text, and else the tokens before, as in lm-eval's rolling log-likelihood (`first`);
            nothing, so that a text's first token is context only (`false`).
        join: what follows every sentence; sentences of a language form one document, or stand alone in `sentence`.
        sentences: how many sentences of the split are taken, the first ones; None for all.
        loss: the precision of the log-probabilities.
        split: the side of the corpus.
        name: level and version; changes when the meaning of any of this changes.
    """

    window: int = 512
    stride: int = 512
    start_token: StartToken = True
    join: str = "\n"
    sentences: int | None = None
    loss: str = "float32"
    split: str = "evaluation"
    name: str = "document/2"

    def as_record(self) -> dict[str, Any]:
        """Return what results.json holds."""
        return {"name": self.name, "hash": self.hash, "settings": asdict(self)}

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


def windows(tokens: Sequence[int], window: int, stride: int, start: int | None, *, every: bool = True) -> list[Window]:
    """Cut `tokens` into windows that score every token exactly once.

    No token is predicted from more than `window` others. Without a start token nothing predicts the very first token,
    and it is not scored.

    Args:
        tokens: of the text.
        window: see Protocol.
        stride: likewise.
        start: the token that starts a document, or None.
        every: lead all windows by it, not only those that reach back to the start of the text.
    """
    made = []
    for begin in range(0, len(tokens), stride):
        end = min(begin + stride, len(tokens))
        if start is not None and (every or end <= window):
            lead: tuple[int, ...] = (start,)
            context = max(0, min(end - window, begin))
        else:
            lead = ()
            context = max(0, min(end - window, begin) - 1)
        unscored = 1 if not lead and begin == 0 else 0
        if end - begin > unscored:
            made.append(Window(lead + tuple(tokens[context:end]), end - begin - unscored, begin + unscored))
    return made
