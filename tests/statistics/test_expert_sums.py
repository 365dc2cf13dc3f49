"""Statistics of experts that are added together are those of each expert alone."""

import pytest
import torch
from pretend_device import DEVICE, Pretend, pretend

from mwanda.statistics import UNIFORM, LanguageStatistics, Needs, SequenceSums
from mwanda.statistics.experts import ExpertStatistics, agrees


NEEDS = Needs.COUNTS | Needs.MEANS


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("length", [5, 300])
def test_sums_are_those_of_each_expert_alone_and_wait_for_nothing(length: int, in_order: bool) -> None:
    generator = torch.Generator().manual_seed(length)
    languages, experts, features = torch.tensor([2, 0, 2]), 5, 6
    chosen = torch.rand(3, length, experts - 1, generator=generator).argsort(dim=2)[..., :2]  # nobody to the last
    rows = (2 if in_order else 1) * 3 * length
    inputs = torch.randn(rows, features, generator=generator)
    inputs[torch.rand(inputs.shape, generator=generator) < 0.2] = 0
    order = chosen.flatten().argsort(stable=True)
    with pretend() as waits:
        statistics = ExpertStatistics(experts, 3, features, DEVICE, NEEDS, UNIFORM)
        for _ in range(2):
            statistics.add(Pretend(inputs.clone()), Pretend(chosen), Pretend(languages), in_order)
        found = statistics.parts
    assert waits.total == 0
    sorted_inputs = inputs if in_order else inputs[order // 2]
    for expert, each in enumerate(found):
        expected = LanguageStatistics.zeros(3, features, needs=NEEDS)
        own = chosen.flatten()[order] == expert
        for language in range(3):
            values = sorted_inputs[own & (languages[order // 2 // length] == language)]
            for _ in range(2):
                expected.add(SequenceSums.of(values[None], NEEDS), torch.tensor([language]))
        for mine, theirs in zip(each.tensors(), expected.tensors(), strict=True):
            assert (mine is None) == (theirs is None)
            if mine is not None and theirs is not None:
                torch.testing.assert_close(mine.values, theirs, rtol=1e-5, atol=1e-4)  # type: ignore[attr-defined]
        assert each.tokens.values.equal(expected.tokens)  # type: ignore[attr-defined]


def test_a_device_whose_sums_differ_or_are_missing_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    own = torch.segment_reduce
    wrong = [lambda *_, **__: 1 / 0, lambda *each, **named: own(*each, **named) + 1]
    for number, reduce in enumerate([own, *wrong]):
        monkeypatch.setattr(torch, "segment_reduce", reduce)
        agrees.cache_clear()
        with pretend():
            assert agrees(DEVICE) == (number == 0)
    agrees.cache_clear()
