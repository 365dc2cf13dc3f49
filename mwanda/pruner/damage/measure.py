"""Measures damage on a part of the calibration set, shared by processes and kept for other runs."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mwanda.calibration import CalibrationSet
from mwanda.criteria import Criterion
from mwanda.errors import ConfigurationError
from mwanda.models import Block
from mwanda.models.forward import input_device, is_causal
from mwanda.patterns import Pattern
from mwanda.pruner.batches import batches_of, sequences_per_batch
from mwanda.pruner.damage.curves import Damage, siblings_of
from mwanda.pruner.damage.gradient_pass import GradientPass, HiddenStates, scoring_criterion
from mwanda.pruner.damage.labels import draws_of
from mwanda.pruner.offloading import Activations, offloading_of
from mwanda.pruner.runtime import Runtime
from mwanda.pruner.visitors import Calibrator, Seconds


@dataclass(frozen=True)
class Sample:
    """What is looked at.

    Args:
        levels: sparsities at which the damage is measured, rising.
        fraction: of each language's calibration tokens.
        labels: share of the positions of a sequence at which tokens are drawn.
        draws: of tokens for each sequence.
        seed: of what is drawn.
    """

    levels: tuple[float, ...]
    fraction: float
    labels: float
    draws: int
    seed: int


def measure_damage(
    model: nn.Module,
    blocks: list[Block],
    calibration: CalibrationSet,
    criterion: Criterion,
    pattern: Pattern,
    sample: Sample,
    batch_size: int,
    expert_tokens: int,
    activations: Activations,
    runtime: Runtime,
    seconds: Seconds,
) -> Damage:
    """Return the damage that pruning each matrix alone would do, by this run or another one.

    Args:
        model: dense, in evaluation mode; its weights are not changed.
        blocks: of the model.
        calibration: of which a part is looked at.
        criterion: says what would be removed.
        pattern: which weights compete.
        sample: what is looked at.
        batch_size: sequences of the calibration set in a forward pass.
        expert_tokens: an expert that saw fewer is judged by all experts of its parameter.
        activations: where hidden states wait.
        runtime: what it is carried out with.
        seconds: the clock.

    Raises:
        ConfigurationError: the model does not predict a token from those before it.
        CalibrationError: inputs or gradients are not finite, or there are fewer sequences than processes.
    """
    check_causal(model)
    scoring, chosen, world = scoring_criterion(criterion), calibration.part(sample.fraction), runtime.world
    names = tuple(matrix.name for block in blocks for matrix in block.matrices)
    key = {
        "criterion": repr(scoring),
        "pattern": repr(pattern),
        "sample": repr(sample),
        "calibration": chosen.fingerprint(),
        "batch_size": batch_size,
        "expert_tokens": expert_tokens,
    }
    labelled = draws_of(chosen.count, chosen.length, sample.labels, sample.draws, sample.seed)
    counts = torch.tensor([part.shape[0] for part in chosen.sequences])
    languages = torch.repeat_interleave(torch.arange(len(chosen.codes)), counts)

    def damage(products: Tensor, rare: list[str]) -> Damage:
        positions = labelled.positions.shape[1]
        return Damage(names, languages, sample.levels, positions, products, siblings_of(names, rare))

    found = runtime.artifacts.find("damage", key) if runtime.artifacts is not None else None
    if found is not None:
        return damage(found.tensors["products"], found.metadata["rare"])
    calibrator = Calibrator(len(chosen.codes), scoring.needs, expert_tokens, world, seconds)
    size = sequences_per_batch(chosen, calibration.length, batch_size, world)
    bar = iter(runtime.progress.track([*blocks, *blocks], "gradients", unit="blocks"))
    with ExitStack() as stack:
        waiting, kept = (stack.enter_context(offloading_of(activations, runtime.scratch)) for _ in range(2))
        own = GradientPass(
            model,
            blocks,
            batches_of(chosen, size, world, input_device(model)),
            world.shard(labelled.split(size)),
            scoring,
            pattern,
            sample.levels,
            calibrator,
            runtime.weights,
            lambda: next(bar, None),
            waiting,
            HiddenStates(kept),
        ).run()
    next(bar, None)
    products = torch.zeros(chosen.count, *own.shape[1:], dtype=own.dtype)
    products[torch.cat(world.shard(torch.arange(chosen.count).split(size)))] = own
    world.all_reduce([products])
    if runtime.artifacts is not None:
        metadata: dict[str, Any] = {"rare": calibrator.pooled}
        runtime.artifacts.keep("damage", key, {"products": products}, metadata)
    return damage(products, calibrator.pooled)


def check_causal(model_or_config: Any) -> None:
    """Refuse models without a language model's loss.

    Raises:
        ConfigurationError: this is one.
    """
    if not is_causal(model_or_config):
        raise ConfigurationError(
            "schedule",
            "fisher",
            "needs a model that predicts each token from those before it alone",
            ["uniform", "owl", "cwl", "owl_cwl", "alphapruning", "atp", "dlp", "lsa"],
        )
