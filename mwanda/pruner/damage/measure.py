"""Measures damage on a part of the calibration set, shared by processes and kept for other runs."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mwanda.criteria import Criterion
from mwanda.criteria.wanda import Wanda
from mwanda.errors import ConfigurationError
from mwanda.models.forward import is_causal
from mwanda.patterns import Pattern
from mwanda.pruner.damage.curves import Damage, siblings_of
from mwanda.pruner.damage.gradient_pass import GradientPass, HiddenStates
from mwanda.pruner.damage.labels import draws_of
from mwanda.pruner.method import Method
from mwanda.pruner.offloading import offloading_of
from mwanda.pruner.passes import Passes
from mwanda.pruner.visitors import CPU
from mwanda.schedules.base import Information
from mwanda.statistics import Needs


WITHOUT_GRADIENTS = ("uniform", "owl", "cwl", "owl_cwl", "alphapruning", "atp", "dlp", "lsa")
"""Schedules for models of any kind."""


@dataclass(frozen=True)
class Sample:
    """What is looked at.

    Args:
        levels: sparsities at which the damage is measured, rising.
        fraction: of each language's calibration tokens.
        labels: share of the positions of a sequence at which tokens are drawn.
        draws: of tokens for each sequence.
        seed: of what is drawn.
        information: how much of the Fisher information is looked at.
        rows: whether the damage of single rows is told as well.
    """

    levels: tuple[float, ...]
    fraction: float
    labels: float
    draws: int
    seed: int
    information: Information = "diagonal"
    rows: bool = False


def scoring_criterion(method: Method) -> Criterion:
    """Return the criterion that says what would be removed.

    It is Wanda where the method needs more of the inputs than sums, or takes no scores: its masks differ little from
    others, and second moments cost more than the pass that this is for.
    """
    scored = method.solver.takes_scores and Needs.SECOND_MOMENTS not in method.criterion.needs
    return method.criterion if scored else Wanda()


def measure_damage(passes: Passes, criterion: Criterion, pattern: Pattern, sample: Sample) -> Damage:
    """Return the damage that pruning each matrix alone would do, by this run or another one.

    Args:
        passes: through the dense model; its weights are not changed.
        criterion: says what would be removed.
        pattern: which weights compete.
        sample: what is looked at.

    Raises:
        ConfigurationError: the model does not predict a token from those before it.
        CalibrationError: inputs or gradients are not finite, or there are fewer sequences than processes.
    """
    check_causal(passes.model)
    settings, runtime, blocks = passes.settings, passes.runtime, passes.blocks
    chosen, world = passes.calibration.part(sample.fraction), runtime.world
    names = tuple(matrix.name for block in blocks for matrix in block.matrices)
    key = {
        "criterion": repr(criterion),
        "pattern": repr(pattern),
        "sample": repr(sample),
        "calibration": chosen.fingerprint(),
        "weights": repr(chosen.weights),
        "batch_size": settings.batch_size,
        "expert_tokens": settings.expert_tokens,
    }
    labelled = draws_of(chosen.count, chosen.length, sample.labels, sample.draws, sample.seed)
    counts = torch.tensor([part.shape[0] for part in chosen.sequences])
    languages = torch.repeat_interleave(torch.arange(len(chosen.codes)), counts)

    def damage(squares: Tensor, rows: Tensor, rare: list[str]) -> Damage:
        positions, outputs = labelled.positions.shape[1], [m.shape[0] for block in blocks for m in block.matrices]
        by_name = dict(zip(names, rows.split(outputs), strict=True)) if sample.rows else {}
        known = {name: part for name, part in by_name.items() if name not in rare}
        return Damage(names, languages, sample.levels, positions, squares, known, siblings_of(names, rare))

    found = runtime.artifacts.find("damage", key) if runtime.artifacts is not None else None
    if found is not None:
        return damage(found.tensors["squares"], found.tensors["rows"], found.metadata["rare"])
    calibrator, size = passes.calibrator(criterion.needs, chosen), passes.sequences_per_batch(chosen)
    bar = iter(runtime.progress.track([*blocks, *blocks], "gradients", unit="blocks"))
    with ExitStack() as stack:
        waiting, kept = (stack.enter_context(offloading_of(settings.activations, runtime.scratch)) for _ in range(2))
        own, rows = GradientPass(
            passes.model,
            blocks,
            passes.batches(chosen),
            world.shard(labelled.split(size)),
            criterion,
            pattern,
            sample.levels,
            sample.information == "diagonal",
            chosen.weights.tensor(len(counts), CPU) / counts if sample.rows else None,
            calibrator,
            runtime.weights,
            lambda: next(bar, None),
            waiting,
            HiddenStates(kept),
        ).run()
    next(bar, None)
    squares = torch.zeros(chosen.count, *own.shape[1:], dtype=own.dtype)
    squares[torch.cat(world.shard(torch.arange(chosen.count).split(size)))] = own
    world.all_reduce([squares, rows])
    rows = rows.float()
    if runtime.artifacts is not None:
        runtime.artifacts.keep("damage", key, {"squares": squares, "rows": rows}, {"rare": calibrator.pooled})
    return damage(squares, rows, calibrator.pooled)


def check_causal(
    model_or_config: Any, key: str = "schedule", value: str = "fisher", choices: Sequence[str] = WITHOUT_GRADIENTS
) -> None:
    """Refuse models without a language model's loss.

    Args:
        model_or_config: the model, or its configuration before it is loaded.
        key: of the configuration, that asks for gradients.
        value: of this key.
        choices: that ask for none.

    Raises:
        ConfigurationError: this is one.
    """
    if not is_causal(model_or_config):
        raise ConfigurationError(key, value, "needs a model that predicts each token from those before it", choices)
