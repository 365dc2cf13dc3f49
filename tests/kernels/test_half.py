"""Products of half precision into float32 are used where a trial says that they are right."""

import logging
from collections.abc import Iterator

import pytest
import torch
from pretend_device import DEVICE, Pretend, pretend
from torch import Tensor

from mwanda.kernels import half
from mwanda.statistics import LanguageStatistics, Needs, SequenceSums, second_moment


HALVES = [torch.bfloat16, torch.float16]
every_half = pytest.mark.parametrize("dtype", HALVES, ids=str)


def as_on_a_gpu(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """Multiply as `torch.mm` with `out_dtype` does, which the CPU has not."""
    assert left.dtype == right.dtype
    assert left.dtype in HALVES
    return torch.mm(left.float(), right.float(), out=out)


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the pretend device multiply half precision into float32."""
    monkeypatch.setattr(half, "product", as_on_a_gpu)
    half.agrees.cache_clear()
    yield
    half.agrees.cache_clear()


def inputs_of(features: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(3, 50, features, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_a_device_without_such_products_or_with_wrong_ones_is_found_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    half.agrees.cache_clear()
    with caplog.at_level(logging.WARNING), pretend():
        values = Pretend(torch.ones(2, 2, dtype=torch.bfloat16))
        assert not half.takes(values)
        assert not half.takes(values)
        assert not half.takes(values.float())
        assert len(caplog.records) == 1
        rounded = lambda left, right, out: out.copy_(left.float() @ right.float()).copy_(out.bfloat16())  # noqa: E731

        def outside(left: Tensor, right: Tensor, out: Tensor) -> None:
            out.as_strided((1,), (1,), 0).fill_(1)
            as_on_a_gpu(left, right, out)

        for wrong in (rounded, outside):
            monkeypatch.setattr(half, "product", wrong)
            half.agrees.cache_clear()
            assert not half.takes(values)
        assert caplog.messages[-1].count("they are wrong by 1.0e+00")
    half.agrees.cache_clear()
    assert "they are wrong by" in caplog.text
    assert not half.takes(torch.ones(2, 2, dtype=torch.bfloat16))


@every_half
@pytest.mark.parametrize("weights", [None, (0.1, 3.0, 0.0)], ids=["uniform", "weighted"])
@pytest.mark.parametrize("features", [6, 10])
@pytest.mark.usefixtures("there")
def test_moments_of_half_precision_are_those_of_float64(
    dtype: torch.dtype, weights: tuple[float, ...] | None, features: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights are not rounded to half precision: a third of a percent of every product would be lost."""
    monkeypatch.setattr(second_moment, "WIDE", 8)  # so that more features are multiplied out by halves
    inputs, dense = inputs_of(features, dtype), inputs_of(features, dtype, seed=1)
    scale = torch.ones(3) if weights is None else torch.tensor(weights)
    expected = [
        torch.einsum("b,bti,btj->ij", scale.double(), left.double(), inputs.double()) for left in (inputs, dense)
    ]
    with pretend() as waits:
        half.agrees(DEVICE, dtype)
        tried = waits.total
        own = None if weights is None else Pretend(scale.clone())
        found = SequenceSums.of(Pretend(inputs), Needs.CROSS_MOMENTS, own, Pretend(dense))
        statistics = LanguageStatistics.zeros(1, features, DEVICE, Needs.CROSS_MOMENTS)
        statistics.add(found, torch.zeros(3, dtype=torch.int64))
        statistics.complete()
    assert waits.total == tried
    for moment, exact in zip((statistics.second_moment, statistics.cross_moment), expected, strict=True):
        assert isinstance(moment, Pretend)
        assert moment.dtype == torch.float32
        torch.testing.assert_close(moment.values.double(), exact, rtol=1e-5, atol=1e-5)


@every_half
@pytest.mark.parametrize("weights", [None, (0.1, 3.0, 0.0)], ids=["uniform", "weighted"])
@pytest.mark.usefixtures("there")
def test_a_thinned_moment_of_half_precision_is_that_of_float32(
    dtype: torch.dtype, weights: tuple[float, ...] | None
) -> None:
    inputs = inputs_of(6, dtype)
    given = None if weights is None else torch.tensor(weights)
    expected = SequenceSums.of(inputs.float(), Needs.SECOND_MOMENTS, given, moment_share=0.3).second_moment
    with pretend() as waits:
        half.agrees(DEVICE, dtype)
        tried = waits.total
        own = None if given is None else Pretend(given.clone())
        found = SequenceSums.of(Pretend(inputs), Needs.SECOND_MOMENTS, own, moment_share=0.3).second_moment
    assert waits.total == tried
    assert isinstance(found, Pretend)
    torch.testing.assert_close(found.values, expected, rtol=1e-5, atol=1e-5)
