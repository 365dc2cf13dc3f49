"""The kernel that adds up exponentials does, in Triton's interpreter, what the plain way does."""

import importlib

import pytest
import torch

from mwanda.kernels import half, vocabulary


CPU = torch.device("cpu")


@pytest.mark.parametrize("size", [1, 1024, 1500])
@pytest.mark.usefixtures("interpreted")
def test_the_kernel_adds_what_the_plain_way_adds(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, shift = torch.randn(3, size, generator=generator), torch.randn(3, 1, generator=generator)
    found, expected = torch.ones(3, 1), torch.ones(3, 1)
    importlib.import_module("mwanda.kernels.row_sums").add_exponentials(logits, shift, found)
    vocabulary.add_exponentials(logits, shift, expected)
    torch.testing.assert_close(found, expected)


def test_what_a_device_cannot_do_is_done_plainly() -> None:
    hidden, rows = torch.randn(3, 8).bfloat16(), torch.randn(5, 8).bfloat16()
    assert not half.takes(hidden)
    found = vocabulary.product(hidden, rows, vocabulary.memory_for(hidden, 5))
    assert found.equal((hidden @ rows.T).float())


def test_a_chunk_is_small_on_the_cpu_and_large_elsewhere() -> None:
    there = torch.device("cuda")
    assert vocabulary.chunk_for(CPU, 10) == vocabulary.chunk_for(there, 1 << 20) == vocabulary.VOCABULARY_CHUNK
    assert vocabulary.chunk_for(there, 1 << 10) == 1 << 16
