"""Products of all experts in one go are used where a trial says that they are right."""

import pytest
import torch
from pretend_device import DEVICE, Pretend, pretend

from mwanda.kernels import grouped


def test_a_device_whose_products_differ_or_are_missing_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, weight = torch.ones(4, 8, dtype=torch.bfloat16), torch.ones(2, 8, 8, dtype=torch.bfloat16)
    own = grouped.product
    for number, product in enumerate([own, lambda *_: 1 / 0, lambda *each: own(*each) + 1]):
        monkeypatch.setattr(grouped, "product", product)
        grouped.agrees.cache_clear()
        with pretend():
            assert grouped.takes(Pretend(rows.clone()), Pretend(weight.clone())) == (number == 0)
            assert grouped.agrees(DEVICE) == (number == 0)
    grouped.agrees.cache_clear()
    assert not grouped.takes(rows, weight)
    assert not grouped.takes(rows.float(), weight)
