"""Masks as packed bits."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_model, tiny_tokenizer

from mwanda.export.masks import Masks, load, pack, unpack
from mwanda.models import LoadedModel, blocks_of


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**31))
def test_unpack_undoes_pack(rows: int, columns: int, seed: int) -> None:
    kept = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < 0.5
    packed = pack(kept)
    assert packed.dtype == torch.uint8
    assert packed.shape == (rows, (columns + 7) // 8)
    assert torch.equal(unpack(packed, columns), kept)


def test_the_first_weight_is_the_highest_bit_and_rows_are_padded_with_zeros() -> None:
    kept = torch.tensor([[True, False, False, False, False, False, False, True, True, False]])
    assert pack(kept).tolist() == [[0b10000001, 0b10000000]]


@pytest.mark.parametrize("family", ["bloom", "gpt2"])  # GPT-2 stores its matrices as in × out
def test_the_file_holds_the_mask_of_every_matrix_as_out_by_in(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    matrices = [matrix for block in blocks_of(model) for matrix in block.matrices]
    for index, matrix in enumerate(matrices):
        noise = torch.rand(matrix.shape, generator=torch.Generator().manual_seed(index))
        matrix.weight.masked_fill_(noise < 0.5, 0)

    loaded = LoadedModel("id", None, model, tiny_tokenizer(), torch.device("cpu"))
    path = Masks().write(loaded, {}, tmp_path)

    assert path == tmp_path / "masks.safetensors"
    written = path.read_bytes()
    assert all(Masks().write(loaded, {}, tmp_path).read_bytes() == written for _ in range(3))
    assert [each.name for each in tmp_path.iterdir()] == ["masks.safetensors"]
    masks = load(path)
    assert set(masks) == {matrix.name for matrix in matrices}
    for matrix in matrices:
        assert torch.equal(masks[matrix.name], matrix.weight != 0)
