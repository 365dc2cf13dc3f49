"""What `mode=prepare` and `mode=inspect` do."""

from dataclasses import replace
from typing import TYPE_CHECKING

from mwanda.job.components import Parts


if TYPE_CHECKING:
    from mwanda.job import memory


def memory_plan(parts: Parts) -> "memory.Plan":
    """Return what the memory of a run depends on."""
    from mwanda.job import memory
    from mwanda.system import device

    source, calibration, pruner = parts.source, parts.calibration, parts.pruner
    needs = parts.method.needs
    if pruner.order == "oneshot":  # one pass sees what both ask for
        needs |= parts.schedule.needs
    return memory.Plan(
        order=pruner.order,
        offload=source.offload,
        activations=pruner.activations,
        needs=needs,
        languages=len(parts.calibration_languages),
        tokens=calibration.most_tokens,
        batch_tokens=pruner.batch_size * calibration.length,
        dtype=source.torch_dtype(device.choose(source.device)),
    )


def prepare(parts: Parts) -> None:
    """Fetch model and text, so that jobs run with the hub off."""
    from mwanda.system.terminal import console

    text = parts.text()
    if parts.harness is not None:
        parts.harness.load(parts.languages, parts.evaluation_corpus, parts.settings.seed)
    # A login node has little memory: every file is fetched, and the blocks are left on disk.
    loaded = replace(parts.source, device="cpu", offload="disk", device_map="none").load()  # type: ignore[type-var]
    parts.calibration.build(loaded.tokenizer, text.calibration)
    if parts.perplexity is not None:
        parts.perplexity.texts(loaded.tokenizer, text.evaluation)
    ready = f"ready: {loaded.id}, {len(parts.languages)} languages of {parts.corpus.name}"
    console().print(ready, markup=False, soft_wrap=True)
