"""How much text the information of each weight needs beside that of all of them together."""

import information
import pytest
import torch
from tiny_models import tiny_calibration, tiny_model


def squares(noise: float) -> information.Squares:
    """Return squares of 60 sequences in 3 languages: one way with one degree of freedom, one with `noise`."""
    generator = torch.Generator().manual_seed(1)
    amounts = torch.logspace(-1, 1, 8, dtype=torch.float64)
    truth = amounts[:, None] * torch.tensor([0.1, 1.0, 4.0], dtype=torch.float64)
    chance = torch.randn(60, 8, 1, generator=generator, dtype=torch.float64)
    values = {"directional": truth * chance.square(), "diagonal": truth * (noise * chance).exp()}
    return information.Squares(values, torch.arange(60) % 3, [1 / 8] * 8)


def test_less_noise_is_less_spread_and_less_excess() -> None:
    found = information.judged(squares(noise=0.1), each=2, choices=4)
    assert found["diagonal"][0] < 0.5 * found["directional"][0]
    assert 0 <= found["diagonal"][1] < found["directional"][1]


def test_more_sequences_say_more() -> None:
    few, many = (information.judged(squares(noise=0.1), each, choices=6)["directional"] for each in (1, 10))
    assert many[0] < few[0]
    assert many[1] < few[1]


def test_what_is_judged_by_itself_has_no_excess() -> None:
    damage = squares(noise=0.1).values["diagonal"].mean(dim=0)
    sizes = [1 / 8] * 8
    least = information.predicted(information.allocated(damage, sizes), damage)
    assert information.predicted(information.allocated(damage * 3, sizes), damage) == pytest.approx(least)
    assert information.predicted(information.allocated(damage.flip(0), sizes), damage) > least


def test_agreement_is_the_ratio_of_what_both_ways_say_in_all() -> None:
    values = {"diagonal": torch.full((4, 2, 3), 3.0), "directional": torch.full((4, 2, 3), 2.0)}
    assert information.agreement(information.Squares(values, torch.zeros(4), [0.5, 0.5])) == [1.5, 1.5, 1.5]


def test_both_ways_look_at_the_same_sequences_of_a_model() -> None:
    found = information.measured(tiny_model("llama"), tiny_calibration(languages=2, sequences=3, length=9), draws=1)
    assert sorted(found.values) == ["diagonal", "directional"]
    assert all(values.shape == (6, len(found.sizes), 3) for values in found.values.values())
    assert sum(found.sizes) == pytest.approx(1)
