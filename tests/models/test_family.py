"""Finding the blocks of a model, and refusing those that cannot be pruned."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from plain_decoder import PlainBlock, PlainDecoder
from tiny_models import tiny_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from mwanda.errors import ModelError
from mwanda.models import blocks_of
from mwanda.models.family import Family, families, family_of
from mwanda.models.left_dense import left_alone
from mwanda.models.source import auto_class


def names(model: nn.Module) -> list[str]:
    """Return the names of the prunable matrices."""
    return [matrix.name for block in blocks_of(model) for matrix in block.matrices]


class OneLayer(nn.Module):
    """A model without any list of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(4, 4)

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Tensor:
        """Pass it."""
        states: Tensor = self.only(torch.zeros(*input_ids.shape, 4))
        return states


class WithLists(nn.Module):
    """A model of the lists it is given, through which text passes one after another.

    Args:
        lists: of blocks that read four features.
        unread: names of lists that text does not pass through.
    """

    def __init__(self, unread: Sequence[str] = (), **lists: list[nn.Module]):
        super().__init__()
        self.unread = unread
        for name, modules in lists.items():
            self.add_module(name, nn.ModuleList(modules))

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Tensor:
        """Return what the blocks make of zeros."""
        states = torch.zeros(*input_ids.shape, 4)
        for name, modules in self.named_children():
            for module in modules if name not in self.unread else ():
                states = module(states)
        return states


class Experts(nn.Module):
    """A block that holds a list itself, each member larger than what else is in the block."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(4, 2)
        self.experts = nn.ModuleList(PlainBlock(4, 32) for _ in range(2))
        self.asked = len(self.experts)

    def forward(self, states: Tensor) -> Tensor:
        """Ask all experts."""
        self.router(states)
        for expert in self.experts[: self.asked]:
            states = expert(states)
        return states


def test_the_size_of_a_block_is_that_of_its_matrices() -> None:
    assert [block.size for block in blocks_of(PlainDecoder(hidden=7, inner=13, blocks=2))] == [2 * 7 * 13] * 2


def test_what_text_passes_through_is_taken_and_not_what_is_largest() -> None:
    model = WithLists(
        vision=[PlainBlock(8, 64) for _ in range(5)],
        decoder=[PlainBlock(4, 16), PlainBlock(4, 16)],
        embeddings=[nn.Embedding(1000, 4)],
        unread=("vision", "embeddings"),
    )
    assert names(model) == ["decoder.0.up", "decoder.0.down", "decoder.1.up", "decoder.1.down"]
    assert [block.index for block in blocks_of(model)] == [0, 1]


def test_lists_that_follow_one_another_are_all_taken() -> None:
    model = WithLists(prelude=[PlainBlock(4, 3)], core=[PlainBlock(4, 16), PlainBlock(4, 16)])
    assert [block.name for block in blocks_of(model)] == ["prelude.0", "core.0", "core.1"]
    assert [block.stack for block in blocks_of(model)] == ["prelude", "core", "core"]
    assert family_of(model) == Family("generic", ("",), ("prelude",), ("core",))


class ByTurns(WithLists):
    """Passes a block of each list after one of every other."""

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Tensor:
        """Take turns."""
        states = torch.zeros(*input_ids.shape, 4)
        for modules in zip(*self.children(), strict=True):
            for module in modules:
                states = module(states)
        return states


def test_lists_that_text_passes_by_turns_are_an_error_that_names_them() -> None:
    model = ByTurns(attention=[PlainBlock(4, 4) for _ in "ab"], feed_forward=[PlainBlock(4, 9) for _ in "ab"])
    with pytest.raises(ModelError, match="through the lists attention and feed_forward by turns"):
        blocks_of(model)


@pytest.mark.parametrize("family", ["xlm", "flaubert"])
def test_attention_and_feed_forward_in_two_lists_are_an_error(family: str) -> None:
    with pytest.raises(ModelError, match=r"transformer\.attentions and transformer\.ffns by turns"):
        blocks_of(on_meta(family, emb_dim=16, n_layers=2, n_heads=4))


def test_a_further_list_that_a_family_does_not_name_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Family("half", ("",), ("layers",))
    monkeypatch.setattr("mwanda.models.family.family_of", lambda _: family)
    with pytest.raises(ModelError, match=r"text also passes through more, .*\(layers\)"):
        blocks_of(WithLists(layers=[PlainBlock(4, 4)], more=[PlainBlock(4, 4)]))


class Recurrent(WithLists):
    """Passes all its blocks twice."""

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Tensor:
        """Go round."""
        return super().forward(input_ids) + super().forward(input_ids)


def test_blocks_that_are_entered_twice_are_an_error_that_says_so() -> None:
    with pytest.raises(ModelError, match=r"enters blocks\.0 2 times"):
        blocks_of(Recurrent(blocks=[PlainBlock(4, 4), PlainBlock(4, 4)]))


@pytest.mark.parametrize(("family", "settings"), [("albert", {"num_hidden_groups": 2}), ("hrm_text", {})])
def test_real_blocks_whose_weights_serve_several_layers_are_an_error(family: str, settings: dict[str, int]) -> None:
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 4}
    with pytest.raises(ModelError, match=r"one pass of text enters .* times; .*ALBERT"):
        blocks_of(on_meta(family, **small, **settings))


class Backwards(WithLists):
    """Passes its blocks from the last to the first."""

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Tensor:
        """Go back."""
        states = torch.zeros(*input_ids.shape, 4)
        for module in reversed(self.blocks):
            states = module(states)
        return states


def test_blocks_in_another_order_than_that_of_their_list_are_an_error() -> None:
    with pytest.raises(ModelError, match="blocks in another order"):
        blocks_of(Backwards(blocks=[PlainBlock(4, 4), PlainBlock(4, 4)]))


class Pooling(PlainBlock):
    """Reads every other token."""

    def forward(self, states: Tensor) -> Tensor:
        """Pool."""
        return super().forward(states[:, ::2]).repeat_interleave(2, dim=1)[:, : states.shape[1]]


def test_a_layer_that_is_not_given_one_vector_a_token_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"blocks\.1\.up is given 6 vectors for 10 tokens"):
        blocks_of(WithLists(blocks=[PlainBlock(4, 4), Pooling(4, 4)]))


class Skipping(PlainBlock):
    """Never calls its second layer."""

    def forward(self, states: Tensor) -> Tensor:
        """Use the first layer alone."""
        return states + self.up(states).sum(dim=-1, keepdim=True)


def test_a_layer_that_text_does_not_reach_is_left_dense_and_told() -> None:
    model = WithLists(blocks=[Skipping(4, 5), Skipping(4, 5)])
    assert names(model) == ["blocks.0.up", "blocks.1.up"]
    told = left_alone(model, blocks_of(model))
    assert told["blocks.1.down.weight"] == "down.weight in the blocks: no layer that calibration text is passed to"


def test_a_block_without_a_layer_that_text_reaches_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"blocks\.1 has no linear layer that text passes through"):
        blocks_of(WithLists(blocks=[PlainBlock(4, 5), nn.Identity()]))


def test_a_block_that_text_does_not_enter_is_left_dense() -> None:
    class Between(WithLists):
        def forward(self, input_ids: Tensor, use_cache: bool = False) -> Tensor:
            states: Tensor = self.blocks[2](self.blocks[0](torch.zeros(*input_ids.shape, 4)))
            return states

    blocks = blocks_of(Between(blocks=[PlainBlock(4, 5) for _ in range(3)]))
    assert [(block.index, block.name) for block in blocks] == [(0, "blocks.0"), (1, "blocks.2")]


def test_a_list_of_experts_is_part_of_its_block() -> None:
    model = WithLists(blocks=[Experts(), Experts()])
    assert names(model)[:3] == ["blocks.0.experts.0.up", "blocks.0.experts.0.down", "blocks.0.experts.1.up"]
    assert len(names(model)) == 2 * 4


def test_experts_of_which_some_are_asked_are_an_error() -> None:
    block = Experts()
    block.asked = 1
    with pytest.raises(ModelError, match=r"some members only of the list that blocks\.0\.experts\.1\.up is in"):
        blocks_of(WithLists(blocks=[block]))


def test_text_that_cannot_be_followed_is_an_error_that_says_why() -> None:
    class Reader(WithLists):
        def forward(self, pixels: Tensor) -> Tensor:
            return pixels

    with pytest.raises(
        ModelError, match=r"text cannot be followed through Reader \(TypeError: .*'input_ids'"
    ) as caught:
        blocks_of(Reader(blocks=[PlainBlock(4, 5)]))
    assert "\n" not in str(caught.value)


def on_meta(family: str, **settings: Any) -> nn.Module:
    """Return a model without weights."""
    config = AutoConfig.for_model(family, **settings)
    with torch.device("meta"):
        model: nn.Module = auto_class(config).from_config(config)
    return model


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

    def forward(self, states: Tensor) -> Tensor:
        """Call every layer."""
        for layer in (self.gate, self.router, self.gate_of_another_size, self.down):
            layer(states)
        made: Tensor = self.experts(states)
        return made


class WithMixture(nn.Module):
    """A block with a mixture of experts."""

    def __init__(self, experts: nn.Module):
        super().__init__()
        self.mixture = Mixture(experts)

    def forward(self, states: Tensor) -> Tensor:
        """Pass the mixture."""
        made: Tensor = self.mixture(states)
        return made


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
    for module in ("family", "left_dense"):
        monkeypatch.setattr(f"mwanda.models.{module}.family_of", lambda _: family)
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


def test_a_list_of_single_layers_is_no_list_of_blocks() -> None:
    model = WithLists(steps=[nn.Linear(4, 4), nn.Tanh()], blocks=[PlainBlock(4, 4)])
    assert names(model) == ["blocks.0.up", "blocks.0.down"]


def test_a_short_convolution_is_left_alone_and_told() -> None:
    class Hybrid(PlainBlock):
        def __init__(self) -> None:
            super().__init__(4, 5)
            self.conv1d = nn.Conv1d(4, 4, kernel_size=3, padding=1, groups=4)

        def forward(self, states: Tensor) -> Tensor:
            return super().forward(self.conv1d(states.transpose(1, 2)).transpose(1, 2))

    model = WithLists(blocks=[Hybrid()])
    assert names(model) == ["blocks.0.up", "blocks.0.down"]
    assert left_alone(model, blocks_of(model)) == {
        "blocks.0.conv1d.weight": "conv1d.weight in the blocks: a convolution"
    }


def test_a_transposed_layer_is_found_by_the_generic_family() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = Conv1D(6, 4)

        def forward(self, states: Tensor) -> Tensor:
            made: Tensor = self.project(states)
            return made

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
