"""Every family keeps the contract; a new one is a few lines here."""

from typing import ClassVar

import torch
from family_contract import FamilyContract

from mwanda.models.family import families


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
    linears = ("self_attention.query_key_value", "self_attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")


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
    """A family the project does not know: the block list is found by itself."""

    family = "stablelm"
    adapter = "generic"
    path = "model.layers"
    linears = SEPARATE_PROJECTIONS


class TestPhi(FamilyContract):
    """Another one, with other names."""

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


def contracts(base: type[FamilyContract] = FamilyContract) -> set[type[FamilyContract]]:
    """Return all subclasses of the contract."""
    below = set(base.__subclasses__())
    return below.union(*(contracts(each) for each in below))


def test_every_known_model_type_has_a_contract() -> None:
    assert set(families()) <= {each.family for each in contracts() if hasattr(each, "family")}
