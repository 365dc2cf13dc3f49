"""What a run takes of memory, by parts."""

import pytest
import torch
from tiny_models import tiny_model

from mwanda.job.memory import Plan, estimate
from mwanda.models import blocks_of
from mwanda.statistics import Needs


TOKENS, BATCH_TOKENS = 1000, 10


def activations(family: str, order: str) -> int:
    """Return the estimate of a float32 model's activations."""
    model = tiny_model(family)
    plan = Plan(order, "none", "device", Needs.NORMS, 3, TOKENS, BATCH_TOKENS, torch.float32)  # type: ignore[arg-type]
    return estimate(model, blocks_of(model), plan)["activations"]


@pytest.mark.parametrize("family", ["llama", "mixtral", "qwen3_moe"])
def test_arrival_holds_the_widest_inputs_of_all_tokens_as_well(family: str) -> None:
    """Those of an expert's second matrix are there once for each expert that a token is sent to."""
    model = tiny_model(family)
    choices = {"down_proj": getattr(model.config, "num_experts_per_tok", 1)}
    widths = [
        matrix.shape[1] * (choices.get(matrix.parameter, 1)) for block in blocks_of(model) for matrix in block.matrices
    ]
    assert activations(family, "arrival") - activations(family, "block") == TOKENS * max(widths) * 4


def statistics(order: str, needs: Needs) -> dict[str, int]:
    model = tiny_model("llama")
    plan = Plan(order, "none", "device", needs, 3, TOKENS, BATCH_TOKENS, torch.float32)  # type: ignore[arg-type]
    return estimate(model, blocks_of(model), plan)


def test_each_order_holds_the_second_moments_of_the_inputs_that_it_watches_at_once() -> None:
    model = tiny_model("llama")
    squares = [[4 * matrix.shape[1] ** 2 for matrix in block.matrices] for block in blocks_of(model)]
    expected = {"oneshot": sum(map(sum, squares)), "block": sum(squares[0]), "arrival": max(squares[0])}
    for order, size in expected.items():
        found, without = statistics(order, Needs.SECOND_MOMENTS), statistics(order, Needs.NORMS)
        assert found["statistics"] - without["statistics"] == size
        (solving,) = found.keys() & {name for name in found if "solved" in name}
        assert found[solving] > without[solving] == 0


def test_every_sum_by_language_takes_its_eight_bytes() -> None:
    features = max(matrix.shape[1] for block in blocks_of(tiny_model("llama")) for matrix in block.matrices)
    sizes = {needs: statistics("arrival", needs)["statistics"] for needs in Needs.__members__.values()}
    each = {Needs.NOTHING: 0, Needs.NORMS: 1, Needs.COUNTS: 3, Needs.MEANS: 2}
    assert {needs: sizes[needs] for needs in each} == {needs: 8 * 3 * features * count for needs, count in each.items()}


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_gradients_hold_what_waits_between_blocks_and_one_block_of_a_batch(family: str) -> None:
    model = tiny_model(family)
    blocks, tokens, batch = blocks_of(model), 100, 10

    def gradients(tokens: int, activations: str = "device", draws: int = 1) -> int:
        plan = Plan("block", "none", activations, Needs.NORMS, 3, TOKENS, batch, torch.float32, tokens, draws)  # type: ignore[arg-type]
        return estimate(model, blocks, plan)["gradients"]

    assert gradients(0) == 0
    # What enters each block and leaves the last, and the gradients of each draw.
    assert gradients(2 * tokens) - gradients(tokens) == tokens * (len(blocks) + 2) * 16 * 4
    assert gradients(tokens, draws=3) - gradients(tokens) == tokens * 2 * 16 * 4
    assert gradients(2 * tokens, "disk") == gradients(tokens, "disk") < gradients(tokens)
