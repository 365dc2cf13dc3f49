"""The column kernel, in Triton's interpreter, prunes and adjusts as the plain way does."""

import copy
import importlib
import logging
from collections.abc import Iterator
from types import ModuleType
from unittest.mock import patch

import pytest
import torch
from pretend_device import moved, pretend, values_of
from tiny_models import tiny_calibration, tiny_model
from torch import Tensor

from mwanda.criteria.sparsegpt import SparseGPT
from mwanda.kernels import columnwise
from mwanda.patterns import Pattern
from mwanda.patterns.n_of_m import NOfM
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner
from mwanda.schedules.uniform import Uniform


@pytest.fixture
def kernel(interpreted: None) -> Iterator[ModuleType]:
    """Give the kernel's module, of which nothing is known yet."""
    columnwise.agrees.cache_clear()
    yield importlib.import_module("mwanda.kernels.columns")
    columnwise.agrees.cache_clear()


def problem(rows: int, size: int, share: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return weights in rows that lie apart, with equals and zeros, and what their columns spread and are scored by."""
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(rows, size + 5, generator=generator)
    whole[:, ::3] = whole[:, ::3].round()
    spread = torch.randn(size + 2, size + 2, generator=generator).mul_(0.1)  # what is left of the diagonal is not read
    gone = torch.rand(rows, size, generator=generator) < share
    values = whole[:, 2 : 2 + size]
    return values, gone, spread[1 : 1 + size, 1 : 1 + size], torch.ones(size)


@pytest.mark.parametrize(("cell", "count"), [(None, 0), (4, 2), (8, 4), (3, 1)], ids=str)
@pytest.mark.parametrize("shape", [(1, 24), (16, 24), (19, 48)], ids=str)
def test_the_kernel_does_what_the_plain_way_does_to_the_bit(
    kernel: ModuleType, shape: tuple[int, int], cell: int | None, count: int
) -> None:
    values, gone, spread, scale = problem(*shape, 0.5 if cell is None else 0.2)
    mine, marks = values.clone(), gone.clone()
    before = values.clone()
    columnwise.plainly(mine, marks, spread, scale, cell, count)
    kernel.adjust(values, gone, spread, scale, cell, count)
    assert gone.equal(marks)
    assert not values.equal(before)
    assert values.equal(mine)


def test_a_kernel_that_errs_or_cannot_be_compiled_is_not_used(
    kernel: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cpu = torch.device("cpu")
    assert columnwise.agrees(cpu, torch.float32, 16, None)
    assert columnwise.agrees(cpu, torch.float32, 16, 4)
    assert not columnwise.agrees(cpu, torch.float64, 16, None)
    assert not columnwise.agrees(cpu, torch.float32, kernel.WIDEST + 1, None)
    for size, wrong in ((8, lambda *_: None), (12, lambda *_: 1 / 0)):
        monkeypatch.setattr(kernel, "adjust", wrong)
        with caplog.at_level(logging.WARNING):
            assert not columnwise.agrees(cpu, torch.float32, size, None)
    assert "its results differ" in caplog.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("pattern", [Unstructured(), NOfM(2, 4)], ids=lambda each: each.name)
def test_a_model_is_pruned_with_the_kernel_as_without(kernel: ModuleType, pattern: Pattern) -> None:
    model, calls = tiny_model("llama", num_hidden_layers=1), []
    there = copy.deepcopy(model)
    settings = tiny_calibration(), SparseGPT(columns=16), Uniform(), pattern, 0.5
    Pruner().prune(model, *settings)
    own = kernel.adjust
    with pretend(kernels=True), patch.object(kernel, "adjust", lambda *args: (calls.append(args), own(*args))[1]):
        Pruner().prune(moved(there), *settings)
    assert len(calls) > 7
    for name, value in values_of(model).items():
        torch.testing.assert_close(values_of(there)[name], value, rtol=1e-3, atol=1e-5)
