"""LAPE picks the neurons that one language activates: by hand, and against a loop over the paper's formula."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mwanda.inside.neurons import entropy, language_neurons


# Two languages, four neurons: shared, of the first language, dead, rarely active in both.
BY_HAND = torch.tensor([[0.5, 0.9, 0.0, 0.2], [0.5, 0.1, 0.0, 0.2]])


def test_entropy_by_hand() -> None:
    values = entropy(BY_HAND).tolist()
    assert values[0] == pytest.approx(math.log(2))
    assert values[1] == pytest.approx(-0.9 * math.log(0.9) - 0.1 * math.log(0.1), abs=1e-6)
    assert values[2] == math.inf  # never active: it belongs to nobody
    assert values[3] == pytest.approx(math.log(2))


def test_neurons_by_hand() -> None:
    # Of the eight probabilities 0 0 .1 .2 .2 .5 .5 .9 the sixth is the bar at 75 %; only 0.9 is above it.
    found = language_neurons(BY_HAND, share=0.5, quantile=0.75)
    assert found.bar == pytest.approx(0.5)
    assert found.chosen.tolist() == [1]  # two were asked for, and one qualifies
    assert found.languages.tolist() == [[True, False]]
    assert found.entropy.tolist() == pytest.approx([0.3250829733914482], abs=1e-6)


def test_a_neuron_that_no_language_activates_often_is_not_chosen_however_low_its_entropy() -> None:
    probabilities = torch.tensor([[0.01, 0.9, 0.8, 0.7], [0.0, 0.5, 0.5, 0.5]])
    assert entropy(probabilities)[0] == 0
    assert 0 not in language_neurons(probabilities, share=0.5, quantile=0.5).chosen.tolist()


@given(arrays("float64", st.tuples(st.integers(1, 5), st.integers(1, 40)), elements=st.floats(0, 1)))
@settings(deadline=None, derandomize=True, max_examples=100)
def test_neurons_against_a_loop(values: object) -> None:
    probabilities = torch.from_numpy(values)
    languages, neurons = probabilities.shape
    bar = sorted(probabilities.flatten().tolist())[max(1, round(0.8 * languages * neurons)) - 1]
    candidates = []
    for neuron in range(neurons):
        column = probabilities[:, neuron].tolist()
        if any(value > bar for value in column):
            shares = [value / sum(column) for value in column]
            candidates.append((-sum(share * math.log(share) for share in shares if share > 0), neuron))
    found = language_neurons(probabilities, share=0.25, quantile=0.8)
    assert len(found.chosen) == min(int(0.25 * neurons), len(candidates))
    expected = sorted(value for value, _ in candidates)[: len(found.chosen)]
    assert found.entropy.tolist() == pytest.approx(expected, abs=1e-9)
    for neuron, languages in zip(found.chosen.tolist(), found.languages.tolist(), strict=True):
        assert languages == [value > bar for value in probabilities[:, neuron].tolist()]
