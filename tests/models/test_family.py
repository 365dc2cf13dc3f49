"""Finding the blocks of a model, and refusing those that cannot be pruned."""

from types import SimpleNamespace

import pytest
import torch
from plain_decoder import PlainBlock, PlainDecoder
from tiny_models import tiny_model
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mwanda.errors import ModelError
from mwanda.models import blocks_of
from mwanda.models.family import Family, families, family_of, find_block_list


def names(model: nn.Module) -> list[str]:
    """Return the names of the prunable matrices."""
    return [matrix.name for block in blocks_of(model) for matrix in block.matrices]


class OneLayer(nn.Module):
    """A model without any list of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(4, 4)


class WithLists(nn.Module):
    """A model of the lists it is given."""

    def __init__(self, **lists: list[nn.Module]):
        super().__init__()
        for name, modules in lists.items():
            self.add_module(name, nn.ModuleList(modules))


class Experts(nn.Module):
    """A block that holds a list itself, each member larger than what else is in the block."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(4, 2)
        self.experts = nn.ModuleList(PlainBlock(4, 32) for _ in range(2))


def test_the_size_of_a_block_is_that_of_its_matrices() -> None:
    assert [block.size for block in blocks_of(PlainDecoder(hidden=7, inner=13, blocks=2))] == [2 * 7 * 13] * 2


def test_the_list_with_most_linear_weights_is_taken() -> None:
    model = WithLists(
        adapters=[PlainBlock(4, 2) for _ in range(5)],
        decoder=[PlainBlock(4, 16), PlainBlock(4, 16)],
        embeddings=[nn.Embedding(1000, 4)],
    )
    assert find_block_list(model) == "decoder"
    assert names(model) == ["decoder.0.up", "decoder.0.down", "decoder.1.up", "decoder.1.down"]


def test_a_list_of_experts_is_part_of_its_block() -> None:
    model = WithLists(blocks=[Experts(), Experts()])
    assert find_block_list(model) == "blocks"
    assert names(model)[:3] == ["blocks.0.router", "blocks.0.experts.0.up", "blocks.0.experts.0.down"]
    assert len(names(model)) == 2 * 5


def test_a_list_of_different_modules_is_no_list_of_blocks() -> None:
    model = WithLists(steps=[nn.Linear(64, 64), nn.Tanh()], blocks=[PlainBlock(4, 4)])
    assert find_block_list(model) == "blocks"


def test_a_transposed_layer_is_found_by_the_generic_family() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = Conv1D(6, 4)

    (block,) = blocks_of(WithLists(blocks=[Block()]))
    assert block.matrices[0].shape == (6, 4)


@pytest.mark.parametrize(
    "model",
    [OneLayer(), WithLists(), WithLists(blocks=[]), WithLists(norms=[nn.LayerNorm(4)])],
    ids=["no list", "nothing", "empty list", "no linear layer"],
)
def test_a_model_without_blocks_is_an_error_that_names_it(model: nn.Module) -> None:
    with pytest.raises(ModelError, match=rf"{type(model).__name__}.*CONTRIBUTING"):
        blocks_of(model)


def test_a_known_family_without_its_blocks_is_an_error_that_says_where_they_should_be() -> None:
    model = PlainDecoder()
    model.config = SimpleNamespace(model_type="bloom")
    with pytest.raises(ModelError, match=r"'bloom'.*transformer\.h.*PlainDecoder"):
        blocks_of(model)


def test_the_first_path_that_exists_counts() -> None:
    family = Family("either", ("either",), ("model.layers", "blocks", "others"))
    model = WithLists(blocks=[PlainBlock(4, 4)], others=[PlainBlock(4, 4)])
    path, found = family.block_list(model)
    assert path == "blocks"
    assert found is model.blocks


def test_a_known_family_is_recognised_by_its_model_type() -> None:
    assert families()["llama"].name == "llama_like"
    assert family_of(tiny_model("bloom")).name == "bloom"
    assert family_of(PlainDecoder()) == Family("generic", ("",), ("layers",))


def test_a_matrix_that_is_also_outside_the_blocks_is_an_error() -> None:
    model = PlainDecoder(hidden=7, inner=259)
    model.head.weight = model.layers[1].up.weight
    with pytest.raises(ModelError, match=r"layers\.1\.up\.weight is also head\.weight"):
        blocks_of(model)


def test_a_matrix_that_two_blocks_share_is_an_error() -> None:
    model = PlainDecoder()
    model.layers[2].up.weight = model.layers[0].up.weight
    with pytest.raises(ModelError, match=r"layers\.[02]\.up\.weight is also layers\.[02]\.up\.weight"):
        blocks_of(model)


def test_a_layer_that_two_blocks_share_is_an_error() -> None:
    model = PlainDecoder()
    model.layers[2].down = model.layers[0].down
    with pytest.raises(ModelError, match="is also"):
        blocks_of(model)


def test_a_block_that_is_listed_twice_is_an_error() -> None:
    block = PlainBlock(4, 4)
    with pytest.raises(ModelError, match="is also"):
        blocks_of(WithLists(blocks=[block, block]))


def test_a_shared_matrix_outside_the_blocks_is_none_of_our_concern() -> None:
    model = PlainDecoder()
    model.head.weight = model.embed.weight
    assert len(names(model)) == 6


@pytest.mark.parametrize("module", [nn.Linear(3, 5), Conv1D(5, 3)], ids=["Linear", "Conv1D"])
def test_both_layouts_multiply_alike(module: nn.Module) -> None:
    (block,) = blocks_of(WithLists(blocks=[nn.Sequential(module)]))
    (matrix,) = block.matrices
    inputs = torch.eye(3)
    with torch.no_grad():
        products: Tensor = module(inputs) - module.bias
        torch.testing.assert_close(products, matrix.weight.T)
