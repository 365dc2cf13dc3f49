"""The kernel of squares by row and level, in Triton's interpreter, adds up what the plain way adds up."""

import importlib
import logging
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from pretend_device import DEVICE, Pretend, pretend
from torch import Tensor

from mwanda.kernels import levels
from mwanda.pruner.damage.products import RowDamage, directional_products


NAME = "mwanda.kernels.level_sums"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture
def kernel(interpreted: None) -> Iterator[ModuleType]:
    """Give the kernel's module, of which nothing is known yet."""
    levels.agrees.cache_clear()
    yield importlib.import_module(NAME)
    levels.agrees.cache_clear()


def case(size: int, count: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradients of 2 sequences, a weight of 5 rows, and the level at which each weight is removed."""
    generator = torch.Generator().manual_seed(size)
    gradient, weight = torch.randn(2, 5, size, generator=generator), torch.randn(5, size, generator=generator)
    codes = torch.randint(count + 1, (5, size), generator=generator, dtype=torch.uint8)
    return gradient.to(dtype), weight.to(dtype), codes


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("size", "count"), [(1, 1), (7, 3), (513, 3), (1200, 5)])
def test_squares_are_added_up_by_row_and_level(kernel: ModuleType, size: int, count: int, dtype: torch.dtype) -> None:
    gradient, weight, codes = case(size, count, dtype)
    found = kernel.squares_by_row(gradient, weight, codes, count)
    exact = (gradient.double() * weight.double()).square()
    expected = [(exact * (codes <= level)).sum(dim=2) for level in range(count)]
    torch.testing.assert_close(found.double(), torch.stack(expected, dim=2), rtol=1e-5, atol=0)
    torch.testing.assert_close(found, levels.plainly(gradient, weight, codes, count), rtol=1e-5, atol=0)


@pytest.mark.usefixtures("kernel")
def test_products_on_a_device_are_those_of_the_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, gradients = torch.randn(3, 4, 20, generator=generator), torch.randn(3, 4, 6, generator=generator)
    weight, codes = torch.randn(6, 20, generator=generator), torch.randint(4, (6, 20), generator=generator).byte()
    own = torch.tensor([1.0, 0.5, 2.0])
    here = RowDamage(torch.zeros(6, dtype=torch.float64), 1, own)
    expected = directional_products(inputs, gradients, weight, codes, 3, apart=True, rows=here)
    with pretend(kernels=True) as waits:
        assert levels.agrees(DEVICE, torch.float32, torch.float32)
        tried = waits.total
        there = RowDamage(Pretend(torch.zeros(6, dtype=torch.float64)), 1, Pretend(own.clone()))
        moved = (Pretend(each.clone()) for each in (inputs, gradients, weight, codes))
        found = directional_products(*moved, 3, apart=True, rows=there)
    assert waits.total == tried
    torch.testing.assert_close(found.values, expected, rtol=1e-5, atol=0)  # type: ignore[attr-defined]
    torch.testing.assert_close(there.total.values, here.total, rtol=1e-5, atol=0)  # type: ignore[attr-defined]


def test_what_the_kernel_does_not_take_is_left_to_the_plain_way(
    kernel: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gradient, weight, codes = case(7, 3)
    assert not levels.takes(gradient, weight, codes)  # on the CPU
    with pretend(kernels=True):
        gradient, weight, codes = Pretend(gradient), Pretend(weight), Pretend(codes)
        assert levels.takes(gradient, weight, codes)
        assert not levels.takes(gradient, weight, codes.long())
        assert not levels.takes(gradient.double(), weight, codes)
        assert not levels.takes(gradient.mT, weight, codes)
        monkeypatch.setattr(kernel, "squares_by_row", lambda *_: torch.zeros(2, 3, 3, device=DEVICE))
        levels.agrees.cache_clear()
        with caplog.at_level(logging.WARNING):
            assert not levels.takes(gradient, weight, codes)
    assert "its sums differ" in caplog.text


def test_without_triton_the_plain_way_is_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    levels.agrees.cache_clear()
    monkeypatch.setitem(sys.modules, NAME, None)
    monkeypatch.delattr("mwanda.kernels.level_sums", raising=False)
    with pretend(kernels=True), caplog.at_level(logging.WARNING):
        assert not levels.agrees(DEVICE, torch.float32, torch.float32)
    levels.agrees.cache_clear()
