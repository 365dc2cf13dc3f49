"""ATP's progression, as the paper writes it, and its budget."""

from itertools import pairwise

import pytest

from mwanda.schedules.atp import ATP


def published(target: float, difference: float, blocks: int) -> list[float]:
    """Return the paper's `s_i = S − β (L − 1) / 2 + β (i − 1)`, `i = 1 … L`."""
    return [target - difference * (blocks - 1) / 2 + difference * (index - 1) for index in range(1, blocks + 1)]


@pytest.mark.parametrize("blocks", [2, 5, 32])
@pytest.mark.parametrize("width", [0.0, 0.1, 0.3])
def test_equal_blocks_get_the_published_progression(blocks: int, width: float) -> None:
    found = ATP(width).allocate([], [1 / blocks] * blocks, 0.6, [0.0] * blocks)
    assert found == pytest.approx(published(0.6, 2 * width / (blocks - 1), blocks), abs=1e-12)


def test_unequal_blocks_rise_by_the_same_difference_and_meet_the_budget() -> None:
    sizes = [5, 1, 7, 3]
    shares = [size / 16 for size in sizes]
    found = ATP(0.12).allocate([], shares, 0.5, [0.0] * 4)
    assert [second - first for first, second in pairwise(found)] == pytest.approx([0.08] * 3, abs=1e-12)
    assert sum(share * value for share, value in zip(shares, found, strict=True)) == pytest.approx(0.5, abs=1e-12)


def test_a_slope_that_no_budget_allows_ends_at_the_bounds() -> None:
    found = ATP(2.0).allocate([], [0.25] * 4, 0.5, [0.0] * 4)
    assert found[0] == 0.0
    assert found[-1] == pytest.approx(0.999)
    assert sum(found) / 4 == pytest.approx(0.5, abs=1e-12)


def test_one_block_gets_the_target() -> None:
    assert ATP(0.3).allocate([], [1.0], 0.5, [0.0]) == pytest.approx([0.5], abs=1e-12)
