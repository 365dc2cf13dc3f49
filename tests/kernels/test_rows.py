"""The row kernel, in Triton's interpreter, zeroes what the plain way zeroes."""

import copy
import importlib
import logging
import sys
from collections.abc import Iterator
from types import ModuleType
from unittest.mock import patch

import pytest
import torch
from pretend_device import DEVICE, Pretend, moved, pretend, values_of
from tiny_models import tiny_calibration, tiny_model
from torch import Tensor

from mwanda.criteria import Criterion
from mwanda.criteria.mwanda import MWanda
from mwanda.criteria.wanda import Wanda
from mwanda.kernels import fused
from mwanda.kernels.lowest import lowest
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner
from mwanda.schedules.uniform import Uniform


NAME = "mwanda.kernels.rows"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@pytest.fixture
def kernel(interpreted: None) -> Iterator[ModuleType]:
    """Give the kernel's module, of which nothing is known yet."""
    fused.agrees.cache_clear()
    yield importlib.import_module(NAME)
    fused.agrees.cache_clear()


def plainly(weight: Tensor, columns: Tensor, count: int) -> Tensor:
    """Return the weights without the lowest of each row."""
    scores = (weight.float().abs() * columns).masked_fill(weight == 0, -1)
    return weight.masked_fill(lowest(scores, count), 0)


@every_dtype
@pytest.mark.parametrize("shape", [(1, 2), (5, 7), (4, 64), (3, 100)], ids=str)
@pytest.mark.parametrize("equals", [False, True])
def test_the_kernel_zeroes_what_the_plain_way_zeroes(
    kernel: ModuleType, shape: tuple[int, int], dtype: torch.dtype, equals: bool
) -> None:
    generator = torch.Generator().manual_seed(1)
    weight, columns = torch.randn(shape, generator=generator), torch.rand(shape[1], generator=generator)
    if equals:
        weight, columns = weight.round(), columns.mul(2).round()
    for count in {1, shape[1] // 2, shape[1] - 1}:
        found = weight.to(dtype, copy=True)
        expected = plainly(found, columns, count)
        kernel.zero_lowest(found, columns, count)
        assert found.equal(expected)


def test_rows_without_a_right_guess_are_read_in_pieces(kernel: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equals on both sides of the edge of a piece, zeros, infinities, and nothing but zeros."""
    monkeypatch.setattr(kernel, "PIECE", 32)
    generator = torch.Generator().manual_seed(2)
    weight, columns = torch.randn(5, 100, generator=generator), torch.rand(100, generator=generator)
    weight[0] = 1
    weight[1, :70] = 0
    weight[2, 10:90] = torch.inf
    weight[3] = 0
    columns[:5] = 0
    for count in (1, 31, 32, 33, 50, 99):
        for equal in (columns, torch.ones(100)):
            found, expected = weight.clone(), plainly(weight, equal, count)
            kernel.zero_lowest(found, equal, count)
            assert found.equal(expected), count


def test_rows_may_lie_apart(kernel: ModuleType) -> None:
    whole = torch.randn(4, 20, generator=torch.Generator().manual_seed(0))
    part, columns = whole[:, 3:13], torch.rand(10, generator=torch.Generator().manual_seed(1))
    before, expected = whole.clone(), plainly(part, columns, 5)
    kernel.zero_lowest(part, columns, 5)
    assert part.equal(expected)
    assert whole[:, :3].equal(before[:, :3])
    assert whole[:, 13:].equal(before[:, 13:])


def test_what_the_kernel_does_not_take_is_left_to_the_plain_way(kernel: ModuleType) -> None:
    assert kernel.takes(torch.ones(2, 3))
    assert not kernel.takes(torch.ones(2, 3).T)
    assert not kernel.takes(torch.ones(2, 3, dtype=torch.float64))
    assert not kernel.takes(torch.ones(1, kernel.LONGEST + 1))
    assert not fused.zero_lowest(torch.ones(2, 3), torch.ones(3), 1)  # on the CPU


@every_dtype
def test_a_kernel_that_errs_or_cannot_be_compiled_is_not_used(
    kernel: ModuleType, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cpu = torch.device("cpu")
    assert fused.agrees(cpu, dtype, 12, True)
    assert not fused.agrees(cpu, dtype, 12, False)
    for size, wrong in ((13, lambda *_: None), (14, lambda *_: 1 / 0)):
        monkeypatch.setattr(kernel, "zero_lowest", wrong)
        with caplog.at_level(logging.WARNING):
            assert not fused.agrees(cpu, dtype, size, True)
    assert "its masks differ" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_without_triton_the_plain_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    fused.agrees.cache_clear()
    monkeypatch.setitem(sys.modules, NAME, None)
    monkeypatch.delattr("mwanda.kernels.rows", raising=False)
    with pretend(kernels=True):
        weight = Pretend(torch.ones(2, 4))
        assert not fused.zero_lowest(weight, torch.ones(4, device=DEVICE), 2)
    fused.agrees.cache_clear()


@pytest.mark.parametrize("criterion", [Wanda(), MWanda()], ids=repr)
def test_a_model_is_pruned_with_the_kernel_as_without(kernel: ModuleType, criterion: Criterion) -> None:
    """Also where rows hold zeros already, and with batches that wait at every matrix."""
    model, calls = tiny_model("llama", num_hidden_layers=1), []
    zeros = model.get_parameter("model.layers.0.mlp.up_proj.weight").data
    zeros[:, :3] = 0
    there = copy.deepcopy(model)
    settings = tiny_calibration(), criterion, Uniform(), Unstructured(), 0.5
    Pruner().prune(model, *settings)
    own = kernel.zero_lowest
    with pretend(kernels=True), patch.object(kernel, "zero_lowest", lambda *args: (calls.append(args), own(*args))):
        Pruner().prune(moved(there), *settings)
    assert len(calls) >= 7
    for name, value in values_of(model).items():
        assert values_of(there)[name].equal(value), name
