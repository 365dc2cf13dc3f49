"""The pruning procedures written plainly: whole forward passes, whole inputs kept, sorts; nothing from the pruner."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mwanda.calibration import CalibrationSet


Order = Literal["oneshot", "block", "arrival"]
Inputs = list[Tensor]
"""What a matrix multiplied: for each language tokens × inputs."""
Score = Callable[[Tensor, Inputs], Tensor]
Select = Callable[[Tensor, float], Tensor]
"""Marks what to remove, from scores and sparsity."""

every_order = pytest.mark.parametrize("order", get_args(Order))


def parameter_of(model: nn.Module, name: str) -> str:
    """Return the name of the parameter that holds a matrix; one expert's is called like `experts.down_proj.3`."""
    parent, _, last = name.rpartition(".")
    holds_experts = last.isdigit() and isinstance(_attribute(model, parent), nn.Parameter)
    return parent if holds_experts else f"{name}.weight"


def is_expert(model: nn.Module, name: str) -> bool:
    """Return whether a matrix is one of those that a mixture of experts keeps in one parameter."""
    return parameter_of(model, name) != f"{name}.weight"


def weight_of(model: nn.Module, name: str) -> Tensor:
    """Return a matrix as out × in; a layer that is not `nn.Linear` stores it transposed."""
    weight = model.get_parameter(parameter_of(model, name)).data
    if is_expert(model, name):
        return weight[int(name.rpartition(".")[2])]
    return weight if isinstance(model.get_submodule(name), nn.Linear) else weight.T


@torch.no_grad()
def run(model: nn.Module, tokens: Tensor) -> Any:
    """Run the whole model with its head; an encoder-decoder is taught the tokens that its encoder reads."""
    config: Any = getattr(model, "config", None)
    if not getattr(config, "is_encoder_decoder", False):
        return model(input_ids=tokens) if is_encoder(model) else model(input_ids=tokens, use_cache=False)
    shifted = tokens.roll(1, dims=1)
    shifted[:, 0] = config.decoder_start_token_id
    return model(input_ids=tokens, decoder_input_ids=shifted, use_cache=False)


def is_encoder(model: nn.Module) -> bool:
    """Return whether a model fills in masked tokens."""
    return type(model).__name__.endswith("ForMaskedLM")


def capture(
    model: nn.Module, names: Sequence[str], calibration: CalibrationSet, expert_tokens: int = 0
) -> dict[str, Inputs]:
    """Run the whole model over all sequences at once; return the inputs of `names` in the order of their calls.

    An expert that saw fewer than `expert_tokens` tokens gets the inputs of all experts of its parameter instead.
    """
    counts = [part.numel() for part in calibration.sequences]
    seen: dict[str, Inputs] = {}
    hooks: list[RemovableHandle] = []
    for name in dict.fromkeys(name for name in names if not is_expert(model, name)):
        keep = _keeper(seen, name, counts)
        hooks.append(model.get_submodule(name).register_forward_pre_hook(keep))
    for mixture in dict.fromkeys(_mixture_of(name) for name in names if is_expert(model, name)):
        keep = _experts_keeper(seen, mixture, counts, set(names), expert_tokens)
        hooks.append(model.get_submodule(mixture).register_forward_pre_hook(keep))
    run(model, torch.cat(calibration.sequences))
    for hook in hooks:
        hook.remove()
    return seen


def wanda(weight: Tensor, inputs: Inputs) -> Tensor:
    """Return `|W_ij| · ‖X_j‖₂`."""
    return weight.abs() * torch.cat(inputs).norm(dim=0)


def wanda_of_unit_tokens(weight: Tensor, inputs: Inputs) -> Tensor:
    """Return `|W_ij| · ‖X_j‖₂` of inputs that are scaled to one size, token by token."""
    return wanda(weight, [each / each.norm(dim=1, keepdim=True) for each in inputs])


def mwanda(weight: Tensor, inputs: Inputs) -> Tensor:
    """Return `|W_ij| · (‖X_j‖₂ / √N + 0.5 · Var_l a_lj)`."""
    shared = torch.cat(inputs).square().mean(dim=0).sqrt()
    return weight.abs() * (shared + 0.5 * profiles(inputs).var(dim=0, correction=0))


def magnitude(weight: Tensor, inputs: Inputs) -> Tensor:
    """Return `|W_ij|`."""
    return weight.abs()


def profiles(inputs: Inputs) -> Tensor:
    """Return the root mean square `a_lj` of each feature in each language that has tokens."""
    return torch.stack([values.square().mean(dim=0).sqrt() for values in inputs if len(values)])


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
    model: nn.Module,
    blocks: Sequence[Sequence[str]],
    calibration: CalibrationSet,
    sparsity: float,
    width: float,
    expert_tokens: int = 0,
) -> list[float]:
    """Return each block's sparsity: the more alike the languages are in it, the lower."""
    inputs = capture(model, [name for names in blocks for name in names], calibration, expert_tokens)
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
    expert_tokens: int = 0,
    of_matrices: Mapping[str, float] | None = None,
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
        expert_tokens: see `capture`.
        of_matrices: the sparsity of each matrix, where those of a block differ.
    """
    every = [name for names in blocks for name in names]
    steps = {
        "oneshot": [every],
        "block": [list(names) for names in blocks],
        "arrival": [[name] for name in capture(model, every, calibration)],
    }[order]
    sparsity_of = {name: sparsity for names, sparsity in zip(blocks, sparsities, strict=True) for name in names}
    sparsity_of |= of_matrices or {}
    for names in steps:
        for name, inputs in capture(model, names, calibration, expert_tokens).items():
            weight = weight_of(model, name)
            weight[select(score(weight, inputs), sparsity_of[name])] = 0


def routed(hidden: Tensor, chosen: Tensor, gate_up: Tensor, counts: Sequence[int]) -> Iterator[tuple[Inputs, Inputs]]:
    """Yield for each expert what its two matrices multiply, by plain products.

    Args:
        hidden: tokens × features, the languages one after another.
        chosen: tokens × choices, the experts that the router sends a token to.
        gate_up: experts × 2·inner × features.
        counts: tokens of each language.
    """
    for expert, matrix in enumerate(gate_up):
        there = (chosen == expert).any(dim=1)
        first = [part[mask] for part, mask in zip(hidden.split(counts), there.split(counts), strict=True)]
        second = []
        for part in first:
            gate, up = (part @ matrix.T).chunk(2, dim=1)
            second.append(nn.functional.silu(gate) * up)
        yield first, second


def _keeper(seen: dict[str, Inputs], name: str, counts: Sequence[int]) -> Callable[..., None]:
    def keep(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        values = args[0].detach().clone()
        seen[name] = list(values.reshape(sum(counts), -1).split(counts))

    return keep


def _experts_keeper(
    seen: dict[str, Inputs], mixture: str, counts: Sequence[int], names: set[str], expert_tokens: int
) -> Callable[..., None]:
    def keep(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        hidden, chosen = args[:2]
        pairs = list(routed(hidden.detach().clone(), chosen, module.get_parameter("gate_up_proj").data, counts))
        for position, parameter in enumerate(("gate_up_proj", "down_proj")):
            own = [pair[position] for pair in pairs]
            everyone = [torch.cat(parts) for parts in zip(*own, strict=True)]
            for expert, inputs in enumerate(own):
                name = f"{mixture}.{parameter}.{expert}"
                enough = sum(len(part) for part in inputs) >= expert_tokens
                if name in names:
                    seen[name] = inputs if enough else everyone

    return keep


def _mixture_of(name: str) -> str:
    return name.rsplit(".", 2)[0]


def _attribute(model: nn.Module, path: str) -> object:
    parent, _, last = path.rpartition(".")
    return getattr(model.get_submodule(parent), last, None)


def _likeness(inputs: Inputs) -> float:
    """Return the mean over pairs of languages of Pearson's correlation between their profiles."""
    correlations = torch.corrcoef(profiles(inputs).double())
    pairs = list(itertools.combinations(range(len(correlations)), 2))
    return sum(float(correlations[pair]) for pair in pairs) / len(pairs)
