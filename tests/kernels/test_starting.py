"""Every kernel is started on the device that holds what it works on: a model may be spread over several."""

from collections.abc import Callable
from importlib import import_module
from unittest.mock import patch

import pytest
import torch
from torch import Tensor


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def start(name: str) -> Callable[..., object]:
    module, _, function = name.rpartition(".")
    found: Callable[..., object] = getattr(import_module(f"mwanda.kernels.{module}"), function)
    return found


STARTS: dict[str, Callable[[Tensor], tuple[object, ...]]] = {
    "rows.zero_lowest": lambda values: (values, torch.ones(16), 4),
    "row_sums.add_exponentials": lambda values: (values, torch.zeros(4, 1), torch.zeros(4, 1)),
    "level_sums.squares_by_row": lambda values: (values[None], random(4, 16), torch.zeros(4, 16, dtype=torch.uint8), 1),
    "columns.adjust": lambda values: (
        values,
        torch.zeros(4, 16, dtype=torch.bool),
        torch.eye(16),
        torch.ones(16),
        None,
        0,
    ),
    "norms.normalise": lambda values: (values, torch.ones(16), 1e-6, False, False),
}


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("name", STARTS)
def test_a_kernel_starts_where_its_values_are(name: str) -> None:
    arguments = STARTS[name](random(4, 16))
    with patch("torch.cuda.device_of", wraps=torch.cuda.device_of) as placed:
        start(name)(*arguments)
    placed.assert_called_once()
    assert placed.call_args.args[0] is arguments[0]
