"""Whether a model gives numbers: what holds none is refused, and not written down as a result."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Literal

from mwanda.errors import EvaluationError
from mwanda.evaluation.sentence_losses import SentenceLosses
from mwanda.languages.ratios import LARGEST


Which = Literal["dense", "pruned"]
"""The model before and after."""

NAMED = 5
"""Languages that a message names."""

logger = logging.getLogger(__name__)


def overflows(losses: SentenceLosses) -> bool:
    """Return whether the perplexity of these losses is too large for a number."""
    tokens = sum(losses.tokens)
    if not all(map(math.isfinite, losses.nats)):
        return True
    return bool(tokens) and math.fsum(losses.nats) / tokens > LARGEST


def check_losses(which: Which, measured: Mapping[str, SentenceLosses]) -> None:
    """Refuse losses that are no numbers, and of the dense model also what overflows; warn of it in the pruned one.

    A pruned model whose loss is infinite is as bad as can be, which is a result. Of a dense model there is nothing to
    take a ratio to.

    Raises:
        EvaluationError: the message names the model and the languages.
    """
    without = {code: sum(map(math.isnan, losses.nats)) for code, losses in measured.items()}
    bad = [code for code, count in without.items() if count]
    if bad:
        count, total = without[bad[0]], len(measured[bad[0]])
        raise EvaluationError(
            f"the {which} model gives no number (NaN) as the loss of {count} of {total} sentences in {bad[0]}"
            f"{_others(bad)}; {_remedy(which)}"
        )
    infinite = [code for code, losses in measured.items() if overflows(losses)]
    if infinite and which == "dense":
        raise EvaluationError(
            f"the dense model has an infinite perplexity in {infinite[0]}{_others(infinite)}; {_remedy(which)}"
        )
    if infinite:
        logger.warning(
            "the pruned model has an infinite perplexity in %s%s, which counts as hurt", infinite[0], _others(infinite)
        )


def check_likelihoods(which: Which, task: str, likelihoods: Sequence[float]) -> None:
    """Do with the log-likelihoods of a task's answers as `check_losses` does with losses.

    Raises:
        EvaluationError: the message names the model and the task.
    """
    without = sum(map(math.isnan, likelihoods))
    infinite = sum(map(math.isinf, likelihoods))
    if without or (infinite and which == "dense"):
        kind = "no number (NaN)" if without else "minus infinity"
        raise EvaluationError(
            f"the {which} model gives {kind} as the log-likelihood of {without or infinite} of {len(likelihoods)} "
            f"answers in task {task}; {_remedy(which)}"
        )
    if infinite:
        logger.warning(
            "the pruned model finds %d of %d answers in task %s impossible", infinite, len(likelihoods), task
        )


def check_logits(which: Which, *, are_numbers: bool) -> None:
    """Refuse a model whose logits were no numbers when it was tried: text that it generates would mean nothing.

    Raises:
        EvaluationError: the message names the model.
    """
    if not are_numbers:
        raise EvaluationError(f"the {which} model gives no numbers (NaN) as logits; {_remedy(which)}")


def _others(codes: Sequence[str]) -> str:
    if len(codes) == 1:
        return ""
    rest = ", ".join(codes[1:NAMED]) + (", …" if len(codes) > NAMED else "")
    return f" and {len(codes) - 1} more ({rest})"


def _remedy(which: Which) -> str:
    cause = "its weights or its arithmetic overflow" if which == "dense" else "what pruning has left of it overflows"
    return f"{cause}: try model.dtype=float32" + ("" if which == "dense" else ", or a lower sparsity")
