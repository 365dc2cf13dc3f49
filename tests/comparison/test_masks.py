"""Overlap of exported masks against sets of weights."""

import numpy as np
import pytest
import torch

from mwanda.comparison.blocks import block_numbers
from mwanda.comparison.masks import agreement, by_block
from mwanda.errors import RecordError
from mwanda.export.bits import pack


def test_agreement_against_sets() -> None:
    generator = torch.Generator().manual_seed(0)
    one, two = (torch.rand(5, 13, generator=generator) < 0.5 for _ in range(2))
    kept = [set(torch.nonzero(mask.flatten()).flatten().tolist()) for mask in (one, two)]
    packed = [np.asarray(pack(mask)) for mask in (one, two)]
    assert agreement(packed[0], packed[1]) == (len(kept[0] & kept[1]), len(kept[0] | kept[1]), len(kept[0]))


def test_matrices_are_summed_by_block() -> None:
    names = ["model.layers.0.up", "model.layers.0.mlp.experts.down_proj.3", "model.layers.10.up"]
    assert block_numbers(names, 2) == {names[0]: 0, names[1]: 0, names[2]: 1}
    sparsity = {"per_layer": [{}, {}], "per_matrix": [{"name": name} for name in names]}
    counts = {names[0]: (1, 2, 1, 4), names[1]: (10, 20, 10, 40), names[2]: (3, 3, 3, 8)}
    assert by_block(counts, sparsity) == {0: (11, 22, 11, 44), 1: (3, 3, 3, 8)}


def test_an_encoder_decoder_has_its_layers_in_a_row() -> None:
    names = ["encoder.block.0.layer.0.q", "encoder.block.1.layer.0.q", "decoder.block.0.layer.0.q"]
    assert list(block_numbers(names, 3).values()) == [0, 1, 2]
    with pytest.raises(RecordError, match="tell 3 blocks, and there are 2"):
        block_numbers(names, 2)
