"""The perplexity protocol: everything that a perplexity depends on besides model and text, under a name and a hash."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mwanda.errors import ComparisonError


StartToken = Literal[True, "first", False]


@dataclass(frozen=True)
class Protocol:
    """How text becomes scored tokens.

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


def protocol_of(results: Mapping[str, Any]) -> str | None:
    """Return name, hash and corpus of the protocol of a results.json, or None where it has no perplexity."""
    found = _protocol(results)
    return f"{found['name']} {found['hash']} on {found['corpus']}" if found else None


def differences(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what a table of these runs has to say of how they were measured, a line each; nothing where all agree."""
    told = []
    protocols = list(dict.fromkeys(protocol_of(one) or "no perplexity" for one in results))
    if len(protocols) > 1:
        settings = [_protocol(one).get("settings") or {} for one in results if _protocol(one)]
        changed = [key for key in settings[0] if len({each.get(key) for each in settings}) > 1] if settings else []
        why = f" ({', '.join(changed)})" if changed else ""
        told.append(f"measured under different protocols{why}, and not comparable: {'; '.join(protocols)}")
    sizes: dict[str, set[tuple[int, int]]] = {}
    for one in results:
        for code, measured in (_perplexity(one).get("dense") or {}).items():
            sizes.setdefault(code, set()).add((measured["bytes"], measured["tokens"]))
    text = [code for code, found in sizes.items() if len({size for size, _ in found}) > 1]
    if text and len(protocols) == 1:
        told.append(f"measured on different text, and not comparable: {', '.join(sorted(text))}")
    if not text and any(len(found) > 1 for found in sizes.values()):
        told.append("tokens differ: compare bits per byte or ratios to the dense model, not perplexities")
    return told


def check_same_protocol(results: Sequence[Mapping[str, Any]]) -> None:
    """Refuse runs whose perplexities were not measured alike.

    Raises:
        ComparisonError: there is no run, one has no perplexity, or protocols, text or tokens differ.
    """
    if not results or any(protocol_of(one) is None for one in results):
        raise ComparisonError("there is no perplexity to compare; choose runs with evaluation=perplexity")
    told = differences(results)
    if told:
        raise ComparisonError(told[0])


def _perplexity(results: Mapping[str, Any]) -> Mapping[str, Any]:
    return results.get("perplexity") or {}


def _protocol(results: Mapping[str, Any]) -> Mapping[str, Any]:
    return _perplexity(results).get("protocol") or {}


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
