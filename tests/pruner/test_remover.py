"""What becomes of weights that a narrower dtype cannot hold."""

import pytest
import torch

from mwanda.pruner.remover import cast


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_no_weight_becomes_zero_and_none_changes_its_sign(dtype: torch.dtype) -> None:
    values = torch.tensor([[-1e-8, 1e-8, 0.0, -1e-40, 1e-40, 0.5, -3.0]], dtype=torch.float64)
    found = cast(values, dtype)
    assert found.dtype == dtype
    assert found.sign().tolist() == values.sign().tolist()


def test_in_float16_the_nearest_number_that_is_not_zero_is_taken() -> None:
    """It was 6.1e-5, the smallest normal number, with a plus."""
    assert cast(torch.tensor([[-1e-8, 2e-8, -4e-8]]), torch.float16).tolist() == [[-(2**-24), 2**-24, -(2**-24)]]


def test_what_can_be_held_is_rounded_as_always() -> None:
    values = torch.randn(7, 9, generator=torch.Generator().manual_seed(0))
    assert cast(values, torch.float16).equal(values.half())
