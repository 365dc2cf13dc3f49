"""What stands for a mask."""

import pytest
import torch

from mwanda.export.bits import digests


def test_a_digest_changes_with_each_weight_that_goes() -> None:
    weight = torch.ones(4, 9)
    seen = set(digests([weight]))
    for place in range(weight.numel()):
        weight.view(-1)[place] = 0
        seen.update(digests([weight]))
        weight.view(-1)[place] = 1
    assert len(seen) == weight.numel() + 1


def test_a_digest_looks_at_the_mask_alone() -> None:
    weight = torch.randn(5, 8)
    weight[weight < 0] = 0
    assert digests([weight]) == digests([(weight * 3).to(torch.bfloat16)])


def test_a_digest_tells_shapes_apart() -> None:
    assert len(set(digests([torch.ones(2, 8), torch.ones(2, 7)]))) == 2


@pytest.mark.parametrize("at_once", [1, 9, 20, 1000])
def test_a_digest_does_not_depend_on_how_much_is_looked_at(at_once: int) -> None:
    weight = torch.rand(6, 9).round()
    transposed = weight.T.contiguous().T  # as GPT-2 holds its weights
    assert digests([weight, transposed], at_once) == 2 * digests([weight])
