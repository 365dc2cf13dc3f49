"""Finding the blocks of a model, and refusing those that cannot be pruned."""

from types import SimpleNamespace

import pytest
import torch
from plain_decoder import PlainBlock, PlainDecoder
from tiny_models import tiny_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from mwanda.errors import ModelError
from mwanda.models import blocks_of
from mwanda.models.family import Family, families, family_of, find_block_list, left_alone


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
    assert names(model)[:2] == ["blocks.0.experts.0.up", "blocks.0.experts.0.down"]
    assert len(names(model)) == 2 * 4


class ManyInOne(nn.Module):
    """Experts in 3-D parameters, in a layout of the given marks."""

    def __init__(self, names: tuple[str, ...] = ("gate_up_proj", "down_proj"), **marks: bool):
        super().__init__()
        self.has_gate, self.has_bias, self.is_transposed, self.has_post_expert_norm = True, False, False, False
        self.num_experts = 3
        for mark, value in marks.items():
            setattr(self, mark, value)
        for name in names:
            self.register_parameter(name, nn.Parameter(torch.zeros(3, 8, 4)))


class Mixture(nn.Module):
    """A feed-forward layer of experts with what may stand beside them."""

    def __init__(self, experts: nn.Module):
        super().__init__()
        self.experts = experts
        self.gate = nn.Linear(4, 3)
        self.router = nn.Sequential(nn.Linear(4, 3))
        self.gate_of_another_size = nn.Linear(4, 5)
        self.down = nn.Linear(4, 3)


class WithMixture(nn.Module):
    """A block with a mixture of experts."""

    def __init__(self, experts: nn.Module):
        super().__init__()
        self.mixture = Mixture(experts)


def test_experts_in_one_parameter_are_matrices_of_their_own() -> None:
    block = blocks_of(WithLists(blocks=[WithMixture(ManyInOne())]))[0]
    found = [matrix.name.removeprefix("blocks.0.mixture.") for matrix in block.matrices]
    parameters = ("gate_up_proj", "down_proj")
    assert found[:6] == [f"experts.{name}.{expert}" for name in parameters for expert in range(3)]
    second = block.matrices[1]
    assert (second.shape, second.parameter, second.expert) == ((8, 4), "gate_up_proj", 1)
    second.weight.fill_(7)
    assert second.tensor.sum(dim=(1, 2)).tolist() == [0, 7 * 32, 0]
    assert block.size == 6 * 32 + 5 * 4 + 3 * 4


def test_routers_are_left_alone_and_told() -> None:
    model = WithLists(blocks=[WithMixture(ManyInOne())])
    blocks = blocks_of(model)
    assert names(model)[6:] == ["blocks.0.mixture.gate_of_another_size", "blocks.0.mixture.down"]
    told = left_alone(model, blocks)
    assert set(told) == {"blocks.0.mixture.gate.weight", "blocks.0.mixture.router.0.weight"}
    assert all("a router" in reason for reason in told.values())


@pytest.mark.parametrize(
    "experts",
    [
        ManyInOne(is_transposed=True),
        ManyInOne(has_bias=True),
        ManyInOne(has_gate=False),
        ManyInOne(has_post_expert_norm=True),
        ManyInOne(("up_proj", "down_proj")),
        ManyInOne(("gate_up_proj", "down_proj", "more")),
    ],
    ids=["transposed", "biases", "no gate", "a norm", "other names", "another parameter"],
)
def test_experts_in_another_layout_are_an_error_that_names_one(experts: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"blocks\.0\.mixture\.experts\.\w+ .*\(3, 8, 4\).*supported are") as caught:
        blocks_of(WithLists(blocks=[WithMixture(experts)]))
    assert "\n" not in str(caught.value)


def test_real_experts_in_another_layout_are_an_error() -> None:
    config = AutoConfig.for_model("gpt_oss", num_hidden_layers=1, hidden_size=8, intermediate_size=8, vocab_size=9)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(ModelError, match=r"model\.layers\.0\.mlp\.experts\.gate_up_proj holds several matrices"):
        blocks_of(model)


def test_what_a_family_keeps_is_left_alone_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model = PlainDecoder(blocks=1)
    family = Family("keeping", ("",), ("layers",), keep=("up",))
    monkeypatch.setattr("mwanda.models.family.family_of", lambda _: family)
    assert names(model) == ["layers.0.down"]
    assert left_alone(model, blocks_of(model)) == {
        "layers.0.up.weight": "up.weight in the blocks: left alone by its family"
    }


def test_lists_are_pruned_in_the_order_of_the_family() -> None:
    model = WithLists(decoder=[PlainBlock(4, 4)], encoder=[PlainBlock(4, 4), PlainBlock(4, 4)])
    model.config = SimpleNamespace(model_type="both")
    family = Family("both", ("both",), ("other", "encoder"), ("decoder",))
    assert family.block_lists(model) == [("encoder", model.encoder), ("decoder", model.decoder)]
    with pytest.raises(ModelError, match=r"'both' expects blocks at decoder, and WithLists has none"):
        family.block_lists(WithLists(encoder=[PlainBlock(4, 4)]))


def test_an_unknown_encoder_decoder_has_a_list_in_each_stack() -> None:
    model = WithLists(decoder=[PlainBlock(4, 9)], encoder=[PlainBlock(4, 4)])
    stacks = [WithLists(blocks=list(model.encoder)), WithLists(blocks=list(model.decoder))]
    model.first, model.second = stacks
    model.get_encoder, model.get_decoder = (lambda stack=stack: stack for stack in stacks)
    model.config = SimpleNamespace(model_type="unknown", is_encoder_decoder=True)
    assert family_of(model) == Family("generic", ("unknown",), ("first.blocks",), ("second.blocks",))


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
    ((path, found),) = family.block_lists(model)
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
