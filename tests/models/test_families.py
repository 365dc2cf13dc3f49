"""Every family keeps the contract; a new one is a few lines here."""

import copy
from typing import ClassVar

import pruning_oracle as oracle
import pytest
import torch
from family_contract import CALIBRATION, SPARSITY, FamilyContract
from pruning_oracle import every_order
from tiny_models import BLOCKS, EXPERTS
from torch import nn
from transformers import PreTrainedModel

from mwanda.criteria.wanda import Wanda
from mwanda.models import blocks_of
from mwanda.models.family import families
from mwanda.models.left_dense import left_dense
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner
from mwanda.pruner.engine import Order
from mwanda.schedules.uniform import Uniform


SEPARATE_PROJECTIONS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
BART_LIKE_PROJECTIONS = (
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.q_proj",
    "self_attn.out_proj",
    "fc1",
    "fc2",
)
EXPERT_MATRICES = tuple(
    f"mlp.experts.{parameter}.{expert}" for parameter in ("gate_up_proj", "down_proj") for expert in range(EXPERTS)
)
FUSED_PROJECTIONS = (
    "self_attention.query_key_value",
    "self_attention.dense",
    "mlp.dense_h_to_4h",
    "mlp.dense_4h_to_h",
)
ENCODER_PROJECTIONS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)


def cross_attending(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return what a decoder has where its encoder has `names`: attention to the encoder after that to itself."""
    own = tuple(name for name in names if name.startswith("self_attn"))
    return (*own, *(name.replace("self_attn", "encoder_attn") for name in own), *names[len(own) :])


class LlamaLikeContract(FamilyContract):
    adapter = "llama_like"
    path = "model.layers"
    linears = SEPARATE_PROJECTIONS


class TestLlama(LlamaLikeContract):
    family = "llama"


class TestMistral(LlamaLikeContract):
    family = "mistral"


class TestQwen2(LlamaLikeContract):
    family = "qwen2"


class TestQwen3(LlamaLikeContract):
    family = "qwen3"


class TestGemma(LlamaLikeContract):
    family = "gemma"


class TestGemma2(LlamaLikeContract):
    family = "gemma2"


class TestGemma3(LlamaLikeContract):
    family = "gemma3_text"


class TestCohere(LlamaLikeContract):
    family = "cohere"


class TestCohere2(LlamaLikeContract):
    family = "cohere2"


class TestBloom(FamilyContract):
    family = "bloom"
    adapter = "bloom"
    path = "transformer.h"
    linears = FUSED_PROJECTIONS


class TestOPT(FamilyContract):
    family = "opt"
    adapter = "opt"
    path = "model.decoder.layers"
    linears = BART_LIKE_PROJECTIONS


class TestXGLM(FamilyContract):
    family = "xglm"
    adapter = "xglm"
    path = "model.layers"
    linears = BART_LIKE_PROJECTIONS
    # Its attention fills with the lowest number of the dtype, which for float64 is no Python number torch accepts.
    dtype: ClassVar[torch.dtype] = torch.float32


class TestGPTNeoX(FamilyContract):
    family = "gpt_neox"
    adapter = "gpt_neox"
    path = "gpt_neox.layers"
    linears = ("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")


class TestGPT2(FamilyContract):
    family = "gpt2"
    adapter = "gpt2"
    path = "transformer.h"
    linears = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


class TestStableLM(FamilyContract):
    family = "stablelm"
    adapter = "stablelm"
    path = "model.layers"
    linears = SEPARATE_PROJECTIONS


class TestOLMo2(FamilyContract):
    family = "olmo2"
    adapter = "olmo2"
    path = "model.layers"
    linears = SEPARATE_PROJECTIONS


class TestPhi3(FamilyContract):
    family = "phi3"
    adapter = "phi3"
    path = "model.layers"
    linears = ("self_attn.o_proj", "self_attn.qkv_proj", "mlp.gate_up_proj", "mlp.down_proj")


class TestFalcon(FamilyContract):
    family = "falcon"
    adapter = "falcon"
    path = "transformer.h"
    linears = FUSED_PROJECTIONS


class TestPhi(FamilyContract):
    """A family the project does not know: the block list is found by itself."""

    family = "phi"
    adapter = "generic"
    path = "model.layers"
    linears = (
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.dense",
        "mlp.fc1",
        "mlp.fc2",
    )


class XLMRContract(FamilyContract):
    adapter = "xlm_roberta"
    path = "roberta.encoder.layer"
    linears = ENCODER_PROJECTIONS


class TestXLMR(XLMRContract):
    family = "xlm-roberta"


class TestXLMRXL(XLMRContract):
    family = "xlm-roberta-xl"


class EncoderDecoderContract(FamilyContract):
    """Two lists of blocks.

    Attributes:
        path: where the encoder's are.
        linears: of a block of the encoder.
        decoder_path: where the decoder's are.
        decoder_linears: of a block of the decoder.
    """

    decoder_path: ClassVar[str]
    decoder_linears: ClassVar[tuple[str, ...]]

    @property
    def stacks(self) -> dict[str, list[tuple[str, ...]]]:
        return {self.path: [self.linears] * BLOCKS, self.decoder_path: [self.decoder_linears] * BLOCKS}


class T5Contract(EncoderDecoderContract):
    adapter = "t5"
    path = "encoder.block"
    decoder_path = "decoder.block"
    spared = ("layer.0.SelfAttention.relative_attention_bias.weight",)


class TestT5(T5Contract):
    family = "t5"
    linears = (
        *(f"layer.0.SelfAttention.{name}" for name in "qkvo"),
        "layer.1.DenseReluDense.wi",
        "layer.1.DenseReluDense.wo",
    )
    decoder_linears = (
        *(f"layer.0.SelfAttention.{name}" for name in "qkvo"),
        *(f"layer.1.EncDecAttention.{name}" for name in "qkvo"),
        "layer.2.DenseReluDense.wi",
        "layer.2.DenseReluDense.wo",
    )


class TestMT5(T5Contract):
    family = "mt5"
    linears = (
        *(f"layer.0.SelfAttention.{name}" for name in "qkvo"),
        *(f"layer.1.DenseReluDense.{name}" for name in ("wi_0", "wi_1", "wo")),
    )
    decoder_linears = (
        *(f"layer.0.SelfAttention.{name}" for name in "qkvo"),
        *(f"layer.1.EncDecAttention.{name}" for name in "qkvo"),
        *(f"layer.2.DenseReluDense.{name}" for name in ("wi_0", "wi_1", "wo")),
    )


class BartLikeContract(EncoderDecoderContract):
    path = "model.encoder.layers"
    linears = BART_LIKE_PROJECTIONS
    decoder_path = "model.decoder.layers"
    decoder_linears = cross_attending(BART_LIKE_PROJECTIONS)


class TestM2M100(BartLikeContract):
    family = "m2m_100"
    adapter = "m2m_100"


class TestMBart(BartLikeContract):
    """An encoder-decoder the project does not know: both lists are found by themselves."""

    family = "mbart"
    adapter = "generic"


class MixtureContract(FamilyContract):
    """Experts in some blocks, all of them in two parameters."""

    path = "model.layers"
    spared = ("mlp.gate.weight",)

    @every_order
    @pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
    def test_experts_with_few_tokens_are_judged_by_those_of_all(
        self, model: PreTrainedModel, dense: PreTrainedModel, order: Order, share: float
    ) -> None:
        names = [name for name in self.expected[-1] if "gate_up_proj" in name]
        seen = oracle.capture(dense, names, CALIBRATION)
        counts = sorted(sum(len(part) for part in seen[name]) for name in names)
        few = {0.0: 0, 0.5: (counts[0] + counts[-1]) // 2, 1.0: 10**6}[share]
        assert counts[0] < counts[-1]
        Pruner(order, batch_size=4, expert_tokens=few).prune(
            model, CALIBRATION, Wanda(), Uniform(), Unstructured(), SPARSITY
        )
        expected = copy.deepcopy(dense)
        oracle.prune(expected, self.expected, CALIBRATION, order, self.sparsities, expert_tokens=few)
        wrong = [
            name
            for name in self.planned(model)
            if not torch.equal(*(each.get_parameter(name) for each in (model, expected)))
        ]
        assert wrong == []

    def test_the_oracle_s_inputs_make_the_output_of_the_experts(self, dense: PreTrainedModel) -> None:
        """Checks what the comparisons above rest on: the router's choice, and the products of each expert by hand."""
        path = next(name for name in self.expected[-1] if "gate_up_proj" in name).rsplit(".", 2)[0]
        mixture, calls = dense.get_submodule(path), []
        hook = mixture.register_forward_hook(lambda _, args, output: calls.append((*args, output)))
        oracle.run(dense, torch.cat(CALIBRATION.sequences))
        hook.remove()
        ((hidden, chosen, weights, output),) = calls
        counts = [part.numel() for part in CALIBRATION.sequences]
        made = torch.zeros_like(output)
        for expert, (_, second) in enumerate(oracle.routed(hidden, chosen, mixture.gate_up_proj.data, counts)):
            tokens, place = (chosen == expert).nonzero(as_tuple=True)
            made[tokens] += torch.cat(second) @ mixture.down_proj.data[expert].T * weights[tokens, place, None]
        torch.testing.assert_close(made, output)

    def test_an_expert_s_two_matrices_make_its_output(self, dense: PreTrainedModel) -> None:
        experts = {
            (matrix.module, matrix.parameter, matrix.expert): matrix
            for block in blocks_of(dense)
            for matrix in block.matrices
            if matrix.expert is not None
        }
        values = torch.randn(5, dense.config.hidden_size, dtype=self.dtype, generator=torch.Generator().manual_seed(0))
        for module, expert in {(module, expert) for module, _, expert in experts}:
            first, second = (experts[module, name, expert] for name in ("gate_up_proj", "down_proj"))
            assert first.tensor is module.gate_up_proj
            assert second.shape == (first.shape[1], first.shape[0] // 2)
            gate, up = (values @ first.weight.T).chunk(2, dim=1)
            chosen = torch.full((5, 1), expert)
            with torch.no_grad():
                found = module(values, chosen, torch.ones(5, 1, dtype=self.dtype))
            torch.testing.assert_close((nn.functional.silu(gate) * up) @ second.weight.T, found)


class TestMixtral(MixtureContract):
    family = "mixtral"
    adapter = "mixtral"
    linears = (*SEPARATE_PROJECTIONS[:4], *EXPERT_MATRICES)


class TestQwen2MoE(MixtureContract):
    """A further expert sees all tokens, behind a gate of its own."""

    family = "qwen2_moe"
    adapter = "qwen_moe"
    linears = (
        *SEPARATE_PROJECTIONS[:4],
        *EXPERT_MATRICES,
        *(f"mlp.shared_expert.{name}" for name in ("gate_proj", "up_proj", "down_proj")),
    )
    spared = ("mlp.gate.weight", "mlp.shared_expert_gate.weight")


class TestQwen3MoE(MixtureContract):
    """The first block has a plain feed-forward layer."""

    family = "qwen3_moe"
    adapter = "qwen_moe"

    @property
    def stacks(self) -> dict[str, list[tuple[str, ...]]]:
        return {self.path: [SEPARATE_PROJECTIONS, (*SEPARATE_PROJECTIONS[:4], *EXPERT_MATRICES)]}


class DifferentBlocksContract(FamilyContract):
    """Blocks of several kinds in one list.

    Attributes:
        layers: the linear layers of each block.
    """

    adapter = "generic"
    path = "model.layers"
    layers: ClassVar[tuple[tuple[str, ...], ...]]

    @property
    def stacks(self) -> dict[str, list[tuple[str, ...]]]:
        return {self.path: list(self.layers)}


class TestQwen3Next(MixtureContract):
    """Linear attention behind a short convolution in the first block."""

    family = "qwen3_next"
    adapter = "qwen_moe"
    spared = ("linear_attn.conv1d.weight", "mlp.gate.weight", "mlp.shared_expert_gate.weight")

    @property
    def stacks(self) -> dict[str, list[tuple[str, ...]]]:
        linear = tuple(f"linear_attn.{name}" for name in ("in_proj_qkvz", "in_proj_ba", "out_proj"))
        shared = tuple(f"mlp.shared_expert.{name}" for name in ("gate_proj", "up_proj", "down_proj"))
        full = (*SEPARATE_PROJECTIONS[:4], *EXPERT_MATRICES, *shared)
        return {self.path: [(*linear, *SEPARATE_PROJECTIONS[4:]), full]}


class TestFalconH1(DifferentBlocksContract):
    """A state-space layer beside attention in every block."""

    family = "falcon_h1"
    layers = (
        (
            *(f"feed_forward.{name}" for name in ("gate_proj", "up_proj", "down_proj")),
            "mamba.in_proj",
            "mamba.out_proj",
            *SEPARATE_PROJECTIONS[:4],
        ),
    ) * 2
    spared = ("mamba.conv1d.weight",)


class TestBamba(DifferentBlocksContract):
    family = "bamba"
    _feed_forward = tuple(f"feed_forward.{name}" for name in ("gate_proj", "up_proj", "down_proj"))
    layers = (
        (*_feed_forward, "mamba.in_proj", "mamba.out_proj"),
        (*_feed_forward, *SEPARATE_PROJECTIONS[:4]),
    )
    spared = ("mamba.conv1d.weight",)


class TestGraniteMoeHybrid(MixtureContract):
    family = "granitemoehybrid"
    adapter = "generic"
    spared = ("block_sparse_moe.router.weight", "mamba.conv1d.weight")

    @property
    def stacks(self) -> dict[str, list[tuple[str, ...]]]:
        both = (
            *(name.replace("mlp", "block_sparse_moe") for name in EXPERT_MATRICES),
            "shared_mlp.input_linear",
            "shared_mlp.output_linear",
        )
        return {self.path: [(*both, "mamba.in_proj", "mamba.out_proj"), (*both, *SEPARATE_PROJECTIONS[:4])]}


class TestNemotronH(DifferentBlocksContract):
    """Each block is one of a state-space layer, attention and a feed-forward layer."""

    family = "nemotron_h"
    layers = (
        ("mixer.in_proj", "mixer.out_proj"),
        tuple(f"mixer.{name}_proj" for name in "qkvo"),
        ("mixer.up_proj", "mixer.down_proj"),
    )
    spared = ("mixer.conv1d.weight",)


class TestLFM2(DifferentBlocksContract):
    """A gated convolution in the place of attention."""

    family = "lfm2"
    _feed_forward = ("feed_forward.w1", "feed_forward.w3", "feed_forward.w2")
    layers = (
        ("conv.in_proj", "conv.out_proj", *_feed_forward),
        (*(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj")), *_feed_forward),
    )
    spared = ("conv.conv.weight",)


class TestJamba(MixtureContract):
    """One layer of its state-space part is no layer to its code, which multiplies by its weight."""

    family = "jamba"
    adapter = "generic"
    spared = ("mamba.A_log", "mamba.conv1d.weight", "mamba.dt_proj.weight", "feed_forward.router.weight")

    @property
    def stacks(self) -> dict[str, list[tuple[str, ...]]]:
        feed_forward = tuple(f"feed_forward.{name}" for name in ("gate_proj", "up_proj", "down_proj"))
        experts = tuple(name.replace("mlp", "feed_forward") for name in EXPERT_MATRICES)
        mamba = tuple(f"mamba.{name}" for name in ("in_proj", "x_proj", "out_proj"))
        return {self.path: [(*mamba, *feed_forward), (*SEPARATE_PROJECTIONS[:4], *experts)]}


class WrapperContract(FamilyContract):
    """A decoder that reads text, within a model that reads images too, by a larger tower."""

    adapter = "generic"
    path = "model.language_model.layers"
    linears = SEPARATE_PROJECTIONS

    def test_the_tower_is_larger_and_left_as_it_is(self, dense: PreTrainedModel, pruned: PreTrainedModel) -> None:
        tower, decoder = (
            sum(p.numel() for p in part.parameters()) for part in (dense.model.vision_tower, self.of(dense))
        )
        assert tower > 2 * decoder
        for name, value in dense.model.vision_tower.state_dict().items():
            assert torch.equal(pruned.model.vision_tower.state_dict()[name], value)

    def test_the_tower_is_told_with_its_weights(self, dense: PreTrainedModel) -> None:
        told = left_dense(dense, blocks_of(dense))
        size = sum(parameter.numel() for parameter in dense.model.vision_tower.parameters())
        assert told["model.vision_tower: calibration text does not pass through it"] == size
        planned = sum(block.size for block in blocks_of(dense))
        assert sum(told.values()) + planned == sum(parameter.numel() for parameter in dense.parameters())

    def of(self, model: PreTrainedModel) -> nn.Module:
        """Return what reads text."""
        decoder: nn.Module = model.get_submodule(self.path)
        return decoder


class TestGemma3WithImages(WrapperContract):
    family = "gemma3"


class TestLlava(WrapperContract):
    family = "llava"


def contracts(base: type[FamilyContract] = FamilyContract) -> set[type[FamilyContract]]:
    """Return all subclasses of the contract."""
    below = set(base.__subclasses__())
    return below.union(*(contracts(each) for each in below))


def test_every_known_model_type_has_a_contract() -> None:
    assert set(families()) <= {each.family for each in contracts() if hasattr(each, "family")}
