"""The published procedure, as the benchmarks run it, against the pruner's order that claims to be the same."""

import copy

import published
import pytest
import torch
from pretend_device import moved, pretend, values_of
from tiny_models import tiny_calibration, tiny_model
from torch import nn

from mwanda.criteria.wanda import Wanda
from mwanda.models import blocks_of
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner
from mwanda.schedules.uniform import Uniform


CALIBRATION = tiny_calibration()


def prune(model: nn.Module, batch_size: int) -> nn.Module:
    published.prune(model, CALIBRATION, 0.5, batch_size)
    return model


@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("family", ["llama", "bloom", "gemma3_text"])
def test_the_masks_are_those_of_the_order_block(family: str, batch_size: int) -> None:
    model = tiny_model(family)
    theirs = prune(copy.deepcopy(model), batch_size)
    Pruner(order="block").prune(model, CALIBRATION, Wanda(), Uniform(), Unstructured(), 0.5)
    for mine, other in zip(blocks_of(model), blocks_of(theirs), strict=True):
        for matrix, same in zip(mine.matrices, other.matrices, strict=True):
            assert torch.equal(matrix.weight, same.weight), matrix.name
            assert int((matrix.weight == 0).sum()) == matrix.weight.numel() // 2


def test_the_model_runs_as_before_afterwards() -> None:
    model = prune(tiny_model("llama"), 4)
    again = tiny_model("llama")
    again.load_state_dict(model.state_dict())
    tokens = CALIBRATION.sequences[0]
    assert torch.equal(model(input_ids=tokens).logits, again(input_ids=tokens).logits)


def test_equal_scores_go_leftmost_first() -> None:
    weight = torch.tensor([[1.0, -1.0, 2.0, 1.0], [3.0, 0.5, 0.5, 0.5]])
    assert published.lowest(weight, torch.ones(4), 0.5).tolist() == [
        [True, True, False, False],
        [False, True, True, False],
    ]


@pytest.mark.filterwarnings("ignore:at.+frobenius_norm")  # the published code's norm, called past torch's own door
def test_it_runs_where_the_model_is() -> None:
    model = tiny_model("llama")
    there = copy.deepcopy(model)
    prune(model, 4)
    with pretend():
        prune(moved(there), 4)
    assert all(values_of(there)[name].equal(value) for name, value in values_of(model).items())
