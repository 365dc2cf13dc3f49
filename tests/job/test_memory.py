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
