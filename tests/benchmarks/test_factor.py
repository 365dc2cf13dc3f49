"""All ways make the same factors, and are timed in turn."""

import factor
import torch


def test_all_ways_make_the_same_factors() -> None:
    found = [way() for way in factor.ways(factor.block_of(8)).values()]
    for factors in zip(*found, strict=True):
        for other in factors[1:]:
            torch.testing.assert_close(other, factors[0], rtol=1e-5, atol=1e-7)


def test_every_way_is_timed_in_every_round() -> None:
    assert {name: len(seconds) for name, seconds in factor.measure(8, 2).items()} == dict.fromkeys(
        ("as published", "one factorisation", "shared"), 2
    )
