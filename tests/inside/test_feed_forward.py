"""The neurons of every family are found, with the weights into and out of each."""

import pytest
import torch
from tiny_models import EXPERTS, FEED_FORWARD, HIDDEN, SIZES, tiny_model

from mwanda.inside.feed_forward import feed_forwards, positive_per_sequence
from mwanda.models import blocks_of


WIDE = dict.fromkeys(("bloom", "falcon"), 4 * HIDDEN)
GATED = {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "cohere", "cohere2"}
GATED |= {"stablelm", "phi3", "olmo2", "mt5", "mixtral", "qwen2_moe", "qwen3_moe"}
MIXED = {"mixtral": (EXPERTS, FEED_FORWARD), "qwen2_moe": (EXPERTS + 1, 8), "qwen3_moe": (EXPERTS, 8)}


@pytest.mark.parametrize("family", SIZES)
def test_the_neurons_of_a_family(family: str) -> None:
    parts = feed_forwards(blocks_of(tiny_model(family))[-1])
    count, size = MIXED.get(family, (1, WIDE.get(family, FEED_FORWARD)))
    assert len(parts) == count
    assert parts[0].neurons == size
    assert parts[0].weights_per_neuron() == HIDDEN * (3 if family in GATED else 2)
    assert (parts[0].gate is not None) == (family in GATED - set(MIXED))


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2", "mixtral"])
def test_zeros_of_a_neuron_against_a_loop(family: str) -> None:
    part = feed_forwards(blocks_of(tiny_model(family))[0])[-1]
    generator = torch.Generator().manual_seed(0)
    for matrix in (part.down, *part.before):
        matrix.weight[torch.rand(matrix.shape, generator=generator) < 0.4] = 0
    expected = []
    for neuron in range(part.neurons):
        zeros = int((part.down.weight[:, neuron] == 0).sum())
        for matrix in part.before:
            zeros += sum(int((matrix.weight[row] == 0).sum()) for row in range(neuron, matrix.shape[0], part.neurons))
        expected.append(zeros)
    assert part.zeros_per_neuron().tolist() == expected


def test_a_gate_counts_its_first_half_where_it_holds_more() -> None:
    output = torch.tensor([[[1.0, -1.0, 5.0, 5.0], [2.0, 0.0, 5.0, 5.0]]])
    assert positive_per_sequence(output, 2).tolist() == [[2, 0]]
