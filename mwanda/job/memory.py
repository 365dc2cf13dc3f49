"""How much memory a run takes, before it starts, and what to change when that is too much.

Estimates of what tensors take; the libraries take another half GiB. They are meant to be right to a factor of about
1.5, on the high side.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from mwanda.errors import MemoryShortageError
from mwanda.models import Block, Matrix
from mwanda.pruner.damage.labels import PER_LOGIT, vocabulary_at_once
from mwanda.pruner.damage.products import GRADIENTS_AT_ONCE
from mwanda.pruner.experts import place_of
from mwanda.statistics import Needs


GIB = 2**30

CPU = torch.device("cpu")

LIBRARIES = GIB // 2

GRAPH = 3
"""Tensors of the size of a product that a block's graph holds for each product."""

PER_SCORE, PER_SCORE_ON_A_DEVICE = 4 + 4 + 1 + 4, 4 + 4 + 4 + 1 + 1 + 8 + 8 + 1 + 1
"""Bytes that scoring and selecting take for each weight; on an accelerator equals are counted by whole numbers."""

SQUARES, MOST_SQUARES, BIASES = 1.5, {"bloom": 3.25}, 2
"""Tensors of tokens × tokens for each head that a pass holds which waits inside attention that is computed in the open
(eager), by family; and those that passes with a relative position bias hold wherever they wait."""

PER_MOMENT, PER_SOLVED_WEIGHT = 8 + 8 + 8 + 8 + 4, 6 * 4
"""Bytes that a solver of second moments takes for each of them (factorised in float64), and for each weight."""


@dataclass(frozen=True)
class Plan:
    """The settings of a run that decide about its memory.

    Args:
        order: of the pruner.
        offload: of the model.
        activations: of the pruner.
        needs: of the criterion and the solver.
        languages: of the calibration set.
        tokens: of the calibration set.
        batch_tokens: of one forward pass.
        dtype: of the weights.
        gradient_tokens: of the part of the calibration set that gradients are taken of; 0 where none are.
        draws: backward passes through each block.
        labels: share of positions at which tokens are drawn.
        length: tokens of a sequence.
        device: that it runs on.
    """

    order: Literal["block", "arrival", "oneshot"]
    offload: Literal["none", "disk"]
    activations: Literal["device", "ram", "disk"]
    needs: Needs
    languages: int
    tokens: int
    batch_tokens: int
    dtype: torch.dtype
    gradient_tokens: int = 0
    draws: int = 1
    labels: float = 1.0
    length: int = 0
    device: torch.device = CPU


def estimate(model: nn.Module, blocks: Sequence[Block], plan: Plan) -> dict[str, int]:
    """Return the bytes that each part of a run takes; `model` may be on the meta device."""
    width = plan.dtype.itemsize
    whole = {id(parameter): parameter.numel() for parameter in model.parameters()}
    inside = [sum(parameter.numel() for parameter in block.module.parameters()) for block in blocks]
    weights = sum(whole.values()) if plan.offload == "none" else sum(whole.values()) - sum(inside) + 2 * max(inside)
    # Matrices that are watched at once.
    watched = {
        "oneshot": [matrix for block in blocks for matrix in block.matrices],
        "block": list(max(blocks, key=lambda block: len(block.matrices)).matrices),
        "arrival": _watched_on_arrival(blocks),
    }[plan.order]
    hidden = _hidden_size(model)
    choices = _choices(model)
    matrices = [matrix for block in blocks for matrix in block.matrices]
    # The second matrix of an expert waits with what the experts have made for each choice of a token.
    wide = max(matrix.shape[1] * (choices if place_of(matrix) is not matrix.module else 1) for matrix in matrices)
    widest = max(matrix.shape[1] * (choices if matrix.expert is not None else 1) for matrix in matrices)
    waiting = plan.tokens if plan.activations == "device" else plan.batch_tokens
    inputs = hidden + wide if plan.order == "arrival" else hidden
    # Of all batches a copy, and in memory what the dense block has made of it.
    beside = 2 * waiting * hidden + plan.tokens * hidden if Needs.CROSS_MOMENTS in plan.needs else 0
    solved = matrices if Needs.SECOND_MOMENTS in plan.needs else []
    return {
        "weights": weights * width,
        "statistics": sum(_statistics_bytes(matrix.shape[1], plan) for matrix in watched),
        "activations": (waiting * (hidden + inputs) + beside + plan.batch_tokens * 4 * widest) * width,
        "attention of passes that wait": _attention_bytes(model, plan),
        "gradients": _gradient_bytes(blocks, plan, hidden, choices) + _drawing_bytes(model, plan),
        "scores and mask of the largest matrix": (PER_SCORE if plan.device.type == "cpu" else PER_SCORE_ON_A_DEVICE)
        * max(matrix.weight.numel() for matrix in matrices),
        "second moments of the largest matrix while they are solved for": max(
            (PER_MOMENT * each.shape[1] ** 2 + PER_SOLVED_WEIGHT * each.weight.numel() for each in solved), default=0
        ),
    }


def _attention_bytes(model: nn.Module, plan: Plan) -> int:
    """Return what is tokens × tokens for each head: it stays for every batch that waits inside of attention."""
    config = getattr(model, "config", None)
    squares = plan.length * int(getattr(config, "num_attention_heads", 0) or 0) * plan.dtype.itemsize
    if getattr(config, "relative_attention_num_buckets", None):
        return BIASES * plan.tokens * squares  # goes from block to block with the hidden states, and is not offloaded
    if getattr(config, "_attn_implementation", None) != "eager":
        return 0
    held = MOST_SQUARES.get(getattr(config, "model_type", ""), SQUARES)
    return int(held * (plan.tokens if plan.order == "arrival" else plan.batch_tokens) * squares)


def _gradient_bytes(blocks: Sequence[Block], plan: Plan, hidden: int, choices: int) -> int:
    """Return what the backward pass needs: hidden states, the graph of one block, and codes of its weights."""
    if not plan.gradient_tokens:
        return 0
    batch = min(plan.batch_tokens, plan.gradient_tokens)
    kept = plan.gradient_tokens * (len(blocks) + 1 + plan.draws) if plan.activations == "device" else batch
    largest = max(blocks, key=lambda block: block.size)
    # Inputs and outputs of all matrices, and what is made of each in between.
    through = sum(
        sum(each.shape) * (choices / _experts(largest, each) if each.expert is not None else 1)
        for each in largest.matrices
    )
    graph = int(batch * GRAPH * through)
    return (kept * hidden + graph) * plan.dtype.itemsize + largest.size + 4 * GRADIENTS_AT_ONCE


def _drawing_bytes(model: nn.Module, plan: Plan) -> int:
    """Return what it takes to draw tokens from a model's predictions, a part of the vocabulary at a time."""
    if not plan.gradient_tokens:
        return 0
    positions = max(1, round(plan.labels * min(plan.batch_tokens, plan.gradient_tokens)))
    at_once = vocabulary_at_once(plan.device, positions)
    vocabulary = int(getattr(getattr(model, "config", None), "vocab_size", None) or at_once)
    return PER_LOGIT * positions * min(at_once, vocabulary)


def _experts(block: Block, matrix: Matrix) -> int:
    """Return how many experts share the tokens that reach a matrix."""
    alike = (each.module is matrix.module and each.parameter == matrix.parameter for each in block.matrices)
    return sum(alike)


def check(model: nn.Module, blocks: Sequence[Block], plan: Plan, available: int) -> str:
    """Return a line that compares the estimate with what is there.

    Raises:
        MemoryShortageError: it cannot fit; the message names the setting that would.
    """
    needed = _total(model, blocks, plan)
    if needed <= available:
        return f"memory: about {needed / GIB:.1f} GiB needed, {available / GIB:.1f} GiB available"
    ways = [
        ("pruner.order=block", replace(plan, order="block")),
        ("pruner.order=block pruner.activations=disk", replace(plan, order="block", activations="disk")),
        ("model.offload=disk", replace(plan, offload="disk")),
        ("model.offload=disk pruner.order=block", replace(plan, offload="disk", order="block")),
        (
            "model.offload=disk pruner.order=block pruner.activations=disk",
            replace(plan, offload="disk", order="block", activations="disk"),
        ),
    ]
    fitting = [(name, _total(model, blocks, way)) for name, way in ways]
    name, size = next((way for way in fitting if way[1] <= available), fitting[-1])
    advice = f"{name} would take about {size / GIB:.1f} GiB"
    if size > available:
        advice = f"even {advice}; choose a smaller model, fewer calibration.sequences or a larger machine"
    raise MemoryShortageError(
        f"this run takes about {needed / GIB:.1f} GiB of memory and {available / GIB:.1f} GiB are free; {advice}"
    )


def _total(model: nn.Module, blocks: Sequence[Block], plan: Plan) -> int:
    return sum(estimate(model, blocks, plan).values()) + LIBRARIES


def _watched_on_arrival(blocks: Sequence[Block]) -> list:  # type: ignore[type-arg]
    """Return the matrices of the fullest mixture, as its experts are watched together, or the widest matrix."""
    together: dict[nn.Module, list] = {}  # type: ignore[type-arg]
    for block in blocks:
        for matrix in block.matrices:
            together.setdefault(place_of(matrix), []).append(matrix)
    return max(together.values(), key=lambda matrices: sum(matrix.shape[1] for matrix in matrices))


def _statistics_bytes(features: int, plan: Plan) -> int:
    moments = (Needs.SECOND_MOMENTS in plan.needs) + (Needs.CROSS_MOMENTS in plan.needs)
    moment = moments * features * features * 4
    each = 8 * (bool(plan.needs) + 2 * (Needs.COUNTS in plan.needs) + (Needs.MEANS in plan.needs))
    return moment + plan.languages * features * each


def _hidden_size(model: nn.Module) -> int:
    config = getattr(model, "config", None)
    return int(getattr(config, "hidden_size", 0) or getattr(config, "d_model", 0) or 0)


def _choices(model: nn.Module) -> int:
    """Return how many experts a token is sent to."""
    return int(getattr(getattr(model, "config", None), "num_experts_per_tok", None) or 1)
