"""Sums of experts, one after the other and together, are the same before they are timed."""

import expert_sums
import pytest
import torch


@pytest.mark.parametrize("in_order", [False, True])
def test_both_ways_give_the_sums_of_each_expert_and_language(in_order: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    chosen = torch.rand(3, 5, 4, generator=generator).topk(2).indices
    languages, expected = torch.tensor([0, 2, 0]), torch.zeros(4, expert_sums.LANGUAGES, 6, dtype=torch.float64)
    choices = chosen.flatten(0, 1)
    order = choices.flatten().argsort(stable=True)
    inputs = torch.randn(len(order) if in_order else 15, 6, generator=generator)
    for row, choice in enumerate(order.tolist()):
        token = choice // 2
        values = inputs[row if in_order else token]
        expected[choices.flatten()[choice], languages[token // 5]] += values.double().square()
    for way in (expert_sums.alone, expert_sums.together):
        torch.testing.assert_close(way(inputs, chosen, languages, 4, in_order=in_order), expected, rtol=1e-5, atol=1e-5)


def test_each_round_times_both_ways() -> None:
    found = expert_sums.measure(experts=4, features=8, batch=2, length=5, rounds=3)
    assert {name: [len(each) for each in rounds] for name, rounds in found.items()} == {
        "first": [2, 2, 2],
        "second": [2, 2, 2],
    }
    assert all(second > 0 for rounds in found.values() for each in rounds for second in each)
