"""The pruning procedures written plainly: whole forward passes, whole inputs kept, sorts; nothing from the pruner."""

import itertools
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import pytest
import torch
from torch import Tensor, nn

from mwanda.calibration import CalibrationSet


Order = Literal["oneshot", "block", "arrival"]
Inputs = list[Tensor]
"""What a matrix multiplied: for each language tokens × inputs."""
Score = Callable[[Tensor, Inputs], Tensor]
Select = Callable[[Tensor, float], Tensor]
"""Marks what to remove, from scores and sparsity."""

every_order = pytest.mark.parametrize("order", get_args(Order))


def weight_of(model: nn.Module, name: str) -> Tensor:
    """Return a matrix as out × in; a layer that is not `nn.Linear` stores it transposed."""
    weight = model.get_parameter(f"{name}.weight").data
    return weight if isinstance(model.get_submodule(name), nn.Linear) else weight.T


@torch.no_grad()
def capture(model: nn.Module, names: Sequence[str], calibration: CalibrationSet) -> dict[str, Inputs]:
    """Run the whole model over all sequences at once; return the inputs of `names` in the order of their calls."""
    seen: dict[str, Tensor] = {}
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: seen.update({name: args[0].detach().clone()})
        )
        for name in names
    ]
    tokens = torch.cat(calibration.sequences)
    model(input_ids=tokens, use_cache=False)
    for hook in hooks:
        hook.remove()
    counts = [part.shape[0] for part in calibration.sequences]
    return {
        name: [part.flatten(0, 1) for part in values.reshape(*tokens.shape, -1).split(counts)]
        for name, values in seen.items()
    }


def wanda(weight: Tensor, inputs: Inputs) -> Tensor:
    """Return `|W_ij| · ‖X_j‖₂`."""
    return weight.abs() * torch.cat(inputs).norm(dim=0)


def mwanda(weight: Tensor, inputs: Inputs) -> Tensor:
    """Return `|W_ij| · (‖X_j‖₂ / √N + 0.5 · Var_l a_lj)`."""
    shared = torch.cat(inputs).square().mean(dim=0).sqrt()
    return weight.abs() * (shared + 0.5 * profiles(inputs).var(dim=0, correction=0))


def magnitude(weight: Tensor, inputs: Inputs) -> Tensor:
    """Return `|W_ij|`."""
    return weight.abs()


def profiles(inputs: Inputs) -> Tensor:
    """Return the root mean square `a_lj` of each feature in each language."""
    return torch.stack([values.square().mean(dim=0).sqrt() for values in inputs])


def lowest_of_rows(scores: Tensor, sparsity: float) -> Tensor:
    """Mark the `floor(s · in)` lowest of each row, by a full stable sort."""
    ranks = scores.argsort(dim=1, stable=True).argsort(dim=1)
    return ranks < int(sparsity * scores.shape[1])


def lowest_of_matrix(scores: Tensor, sparsity: float) -> Tensor:
    """Mark the `floor(s · size)` lowest of the whole matrix."""
    return lowest_of_rows(scores.reshape(1, -1), sparsity).view(scores.shape)


def lowest_two_of_four(scores: Tensor, sparsity: float) -> Tensor:
    """Mark the two lowest of each four consecutive inputs."""
    return lowest_of_rows(scores.reshape(-1, 4), 0.5).view(scores.shape)


def cwl_sparsities(
    model: nn.Module, blocks: Sequence[Sequence[str]], calibration: CalibrationSet, sparsity: float, width: float
) -> list[float]:
    """Return each block's sparsity: the more alike the languages are in it, the lower."""
    inputs = capture(model, [name for names in blocks for name in names], calibration)
    signal = torch.tensor([sum(_likeness(inputs[name]) for name in names) / len(names) for names in blocks])
    sizes = torch.tensor([sum(weight_of(model, name).numel() for name in names) for names in blocks])
    relative = -2 * width * (signal - signal.min()) / (signal.max() - signal.min())
    mean = (sizes * relative).sum() / sizes.sum()
    return (sparsity + relative - mean).tolist()


def prune(
    model: nn.Module,
    blocks: Sequence[Sequence[str]],
    calibration: CalibrationSet,
    order: Order,
    sparsities: Sequence[float],
    score: Score = wanda,
    select: Select = lowest_of_rows,
) -> None:
    """Prune in place, running the model anew wherever an order wants the inputs that pruned weights have made.

    Args:
        model: with dense weights.
        blocks: for each block the names of its matrices.
        calibration: what the inputs are taken from.
        order: `oneshot` takes the inputs of all matrices from the dense model; `block` those of a block when the
            blocks before it are pruned (the published procedure); `arrival` those of a matrix when all matrices
            that are called before it are pruned.
        sparsities: of each block.
        score: see above.
        select: see above.
    """
    every = [name for names in blocks for name in names]
    steps = {
        "oneshot": [every],
        "block": [list(names) for names in blocks],
        "arrival": [[name] for name in capture(model, every, calibration)],
    }[order]
    sparsity_of = {name: sparsity for names, sparsity in zip(blocks, sparsities, strict=True) for name in names}
    for names in steps:
        for name, inputs in capture(model, names, calibration).items():
            weight = weight_of(model, name)
            weight[select(score(weight, inputs), sparsity_of[name])] = 0


def _likeness(inputs: Inputs) -> float:
    """Return the mean over pairs of languages of Pearson's correlation between their profiles."""
    correlations = torch.corrcoef(profiles(inputs).double())
    pairs = list(itertools.combinations(range(len(inputs)), 2))
    return sum(float(correlations[pair]) for pair in pairs) / len(pairs)
