"""The modes besides a run: `mode=prepare` and `mode=inspect`."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mwanda.job.components import Parts
from mwanda.schedules.base import LooksAtGradients


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from mwanda.calibration import CalibrationSet
    from mwanda.evaluation.perplexity import Text
    from mwanda.job import memory


logger = logging.getLogger(__name__)


def memory_plan(parts: Parts) -> "memory.Plan":
    """Return what the memory of a run depends on."""
    from mwanda.job import memory
    from mwanda.system import device

    source, calibration, pruner = parts.source, parts.calibration, parts.pruner
    needs = parts.method.needs
    if pruner.order == "oneshot":  # one pass sees what both ask for
        needs |= parts.schedule.needs
    fraction, draws, labels = _of_gradients(parts)
    place = device.choose(source.device)
    return memory.Plan(
        order=pruner.order,
        offload=source.offload,
        activations=pruner.activations,
        needs=needs,
        languages=len(parts.calibration_languages),
        tokens=calibration.most_tokens,
        batch_tokens=pruner.batch_size * calibration.length,
        dtype=source.torch_dtype(place),
        gradient_tokens=int(fraction * calibration.most_tokens),
        draws=draws,
        labels=labels,
        length=calibration.length,
        device=place,
    )


def check_memory(parts: Parts, config: Any) -> "PreTrainedModel":
    """Say what memory a run takes, and refuse one that does not fit; return the model without weights.

    Args:
        parts: of the run.
        config: of the model.

    Raises:
        MemoryShortageError: it cannot fit; the message names the setting that would.
    """
    from mwanda.job import memory
    from mwanda.models import blocks_of
    from mwanda.system import device

    source = parts.source
    skeleton, spread = source.skeleton(config), source.device_map == "auto"
    free = device.available_bytes(device.choose(source.device), every=spread)
    logger.info(memory.check(skeleton, blocks_of(skeleton), memory_plan(parts), free))
    return skeleton


def check_text(
    parts: Parts,
    skeleton: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    calibration: "CalibrationSet",
    texts: "Mapping[str, Text]",
) -> None:
    """Refuse text that is longer than a model can read, or has tokens that it has no embedding for.

    Args:
        parts: of the run.
        skeleton: the model without weights.
        tokenizer: of the model.
        calibration: what it is calibrated on.
        texts: what it is measured on.

    Raises:
        InputError: there is such text; the message names what would do.
    """
    from mwanda.models.limits import check_positions, check_tokens

    path, perplexity = parts.source.path, parts.perplexity
    lengths = {"calibration.length": (parts.calibration.length, calibration.length)}
    used = {"the calibration text": [int(part.max()) for part in calibration.sequences if part.numel()]}
    if perplexity is not None:
        lengths["evaluation.window"] = (perplexity.window, perplexity.longest(tokenizer, texts))
        used["the evaluation text"] = [max(text.tokens) for text in texts.values() if text.tokens]
    check_positions(skeleton, path, lengths)
    check_tokens(skeleton, path, tokenizer, used)


LABELS = 0.25
"""Share of positions at which a forecast draws tokens, where no schedule says it."""


def _of_gradients(parts: Parts) -> tuple[float, int, float]:
    """Return of which part of the tokens gradients are taken, how often, and at which share of positions."""
    schedule = parts.schedule
    own = schedule if isinstance(schedule, LooksAtGradients) else None
    if parts.settings.mode == "plan":
        return parts.settings.plan.fraction, parts.settings.plan.draws, LABELS if own is None else own.labels
    return (0.0, 1, 1.0) if own is None else (own.signal_fraction, own.draws, own.labels)


def prepare(parts: Parts) -> None:
    """Fetch model and text, so that jobs run with the hub off."""
    from mwanda.system.terminal import console

    text = parts.text()
    if parts.harness is not None:
        parts.harness.load(parts.languages, parts.evaluation_corpus, parts.settings.seed)
    # A login node has little memory: every file is fetched, and the blocks are left on disk.
    loaded = replace(parts.source, device="cpu", offload="disk", device_map="none").load()  # type: ignore[type-var]
    calibration = parts.calibration.build(loaded.tokenizer, text.calibration)
    texts = parts.perplexity.texts(loaded.tokenizer, text.evaluation) if parts.perplexity is not None else {}
    check_text(parts, loaded.model, loaded.tokenizer, calibration, texts)
    ready = f"ready: {loaded.id}, {len(parts.languages)} languages of {parts.corpus.name}"
    console().print(ready, markup=False, soft_wrap=True)
