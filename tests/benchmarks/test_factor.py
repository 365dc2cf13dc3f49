"""All ways make factors of the same inverse, and are timed in turn."""

import factor
import torch


def test_all_ways_make_the_same_factors() -> None:
    """What the solver works from says the inverse of what the others make; for one block it is that but for scale."""
    published, solved, feedback, shared = (way() for way in factor.ways(factor.block_of(8)).values())
    for first, second, third, fourth in zip(published, solved, feedback, shared, strict=True):
        torch.testing.assert_close(second, first, rtol=1e-5, atol=1e-7)
        assert fourth.equal(third)
        scale = third.diagonal()
        unit = third.triu(1) + torch.eye(len(third))
        torch.testing.assert_close(unit / scale[:, None], first, rtol=1e-5, atol=1e-7)


def test_every_way_is_timed_in_every_round() -> None:
    assert {name: len(seconds) for name, seconds in factor.measure(8, 2).items()} == dict.fromkeys(
        ("as published", "one and a solve", "feedback", "shared"), 2
    )
