"""Tiny random models of many families, with a tokenizer and calibration data that fit them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    AutoConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from mwanda.calibration import CalibrationSet
from mwanda.models.source import auto_class


SPECIAL_TOKENS = ("<s>", "</s>", "<pad>")
VOCABULARY = len(SPECIAL_TOKENS) + 256
POSITIONS = 256
BLOCKS = 2
HIDDEN = 16
FEED_FORWARD = 24
EXPERTS = 4

_GROUPED_HEADS: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": FEED_FORWARD,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": POSITIONS,
}
_ALL_HEADS = {key: value for key, value in _GROUPED_HEADS.items() if key != "num_key_value_heads"}
_ONE_LOCAL_BLOCK = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}

_EXPERTS = {"num_experts_per_tok": 2, "output_router_logits": False}
_ENCODER = {**_ALL_HEADS, "max_position_embeddings": POSITIONS + 4}
_T5 = {"d_model": HIDDEN, "d_kv": 4, "d_ff": FEED_FORWARD, "num_layers": BLOCKS, "num_heads": 4}
_BART_LIKE = {
    "d_model": HIDDEN,
    "encoder_layers": BLOCKS,
    "decoder_layers": BLOCKS,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": FEED_FORWARD,
    "decoder_ffn_dim": FEED_FORWARD,
    "max_position_embeddings": POSITIONS,
    "decoder_start_token_id": 1,
}
_T5_START = 2  # padding, as in the published checkpoints

SIZES: dict[str, dict[str, Any]] = {
    "bloom": {"hidden_size": HIDDEN, "n_layer": BLOCKS, "n_head": 4},
    "llama": _GROUPED_HEADS,
    "mistral": {**_GROUPED_HEADS, "sliding_window": 4},
    "qwen2": _GROUPED_HEADS,
    "qwen3": {**_GROUPED_HEADS, "head_dim": 8},
    "gemma": {**_GROUPED_HEADS, "head_dim": 8},
    "gemma2": {**_GROUPED_HEADS, **_ONE_LOCAL_BLOCK, "head_dim": 8},
    "gemma3_text": {**_GROUPED_HEADS, **_ONE_LOCAL_BLOCK, "head_dim": 8},
    "cohere": _GROUPED_HEADS,
    "cohere2": {**_GROUPED_HEADS, **_ONE_LOCAL_BLOCK},
    "opt": {
        "hidden_size": HIDDEN,
        "word_embed_proj_dim": 12,
        "ffn_dim": FEED_FORWARD,
        "num_hidden_layers": BLOCKS,
        "num_attention_heads": 4,
        "max_position_embeddings": POSITIONS,
    },
    "xglm": {
        "d_model": HIDDEN,
        "ffn_dim": FEED_FORWARD,
        "num_layers": BLOCKS,
        "attention_heads": 4,
        "max_position_embeddings": POSITIONS,
    },
    "gpt_neox": {**_ALL_HEADS, "rotary_pct": 0.5},
    "gpt2": {"n_embd": HIDDEN, "n_inner": FEED_FORWARD, "n_layer": BLOCKS, "n_head": 4, "n_positions": POSITIONS},
    "stablelm": _GROUPED_HEADS,
    "phi": _ALL_HEADS,
    "phi3": _GROUPED_HEADS,
    "falcon": {"hidden_size": HIDDEN, "num_hidden_layers": BLOCKS, "num_attention_heads": 4},
    "olmo2": _GROUPED_HEADS,
    "mixtral": {**_GROUPED_HEADS, **_EXPERTS, "num_local_experts": EXPERTS},
    "qwen2_moe": {
        **_GROUPED_HEADS,
        **_EXPERTS,
        "num_experts": EXPERTS,
        "moe_intermediate_size": 8,
        "shared_expert_intermediate_size": 20,
    },
    "qwen3_moe": {
        **_GROUPED_HEADS,
        **_EXPERTS,
        "head_dim": 8,
        "num_experts": EXPERTS,
        "moe_intermediate_size": 8,
        "mlp_only_layers": [0],
    },
    "t5": {**_T5, "decoder_start_token_id": _T5_START},
    "mt5": {**_T5, "decoder_start_token_id": _T5_START},
    "m2m_100": _BART_LIKE,
    "mbart": _BART_LIKE,
    "xlm-roberta": _ENCODER,
    "xlm-roberta-xl": _ENCODER,
}
"""The configuration of each family, by `model_type`; dimensions are multiples of four, those of experts of eight."""

_HYBRID = {**_GROUPED_HEADS, "num_hidden_layers": 2}
_LINEAR_ATTENTION = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
    "layer_types": ["linear_attention", "full_attention"],
}
_MAMBA = {"mamba_d_state": 8, "mamba_n_groups": 1, "mamba_expand": 2, "mamba_d_conv": 4, "mamba_chunk_size": 8}
HYBRIDS: dict[str, dict[str, Any]] = {
    "qwen3_next": {
        **_HYBRID,
        **_EXPERTS,
        **_LINEAR_ATTENTION,
        "head_dim": 8,
        "num_experts": EXPERTS,
        "moe_intermediate_size": 8,
        "shared_expert_intermediate_size": 20,
        "mlp_only_layers": [0],
    },
    "falcon_h1": {**_HYBRID, **_MAMBA, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8},
    "granitemoehybrid": {
        **_HYBRID,
        **_MAMBA,
        **_EXPERTS,
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "num_local_experts": EXPERTS,
        "shared_intermediate_size": 20,
        "layer_types": ["mamba", "attention"],
    },
    "bamba": {**_HYBRID, **_MAMBA, "mamba_n_heads": 4, "mamba_d_head": 8, "attn_layer_indices": [1]},
    "nemotron_h": {
        "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 4,
        "max_position_embeddings": POSITIONS,
        "layers_block_type": ["mamba", "attention", "mlp"],
        "num_hidden_layers": 3,
        "mamba_num_heads": 4,
        "mamba_head_dim": 8,
        "ssm_state_size": 8,
        "n_groups": 1,
        "chunk_size": 8,
    },
    "lfm2": {**_HYBRID, "layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    "jamba": {
        **_HYBRID,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "num_experts": EXPERTS,
        "num_experts_per_tok": 2,
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
    },
}
"""Models whose blocks have a short convolution beside their linear layers, or instead of attention."""

_VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
WRAPPERS: dict[str, dict[str, Any]] = {
    "gemma3": {
        "text_config": {**SIZES["gemma3_text"], "model_type": "gemma3_text"},
        "vision_config": {**_VISION, "image_size": 16, "patch_size": 4, "model_type": "siglip_vision_model"},
        "mm_tokens_per_image": 4,
        "image_token_index": 258,
    },
    "llava": {
        "text_config": {**_GROUPED_HEADS, "model_type": "llama"},
        "vision_config": {**_VISION, "image_size": 16, "patch_size": 4, "model_type": "clip_vision_model"},
        "image_token_index": 258,
    },
}
"""Models that read images besides text; the tower that does is larger than what reads text."""


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token for each byte of UTF-8, so that it reads every script."""
    alphabet = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(BPE(vocab={token: index for index, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    start, end, padding = SPECIAL_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=start,
        eos_token=end,
        pad_token=padding,
        unk_token=end,  # never made; without it some families' own tokenizer class adds a token outside the vocabulary
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def tiny_model(family: str, seed: int = 0, dtype: torch.dtype = torch.float32, **overrides: object) -> PreTrainedModel:
    """Return a random model of a family (a key of `SIZES`) in evaluation mode.

    Args:
        family: the `model_type` of its configuration, a key of `SIZES`, `HYBRIDS` or `WRAPPERS`.
        seed: of the weights.
        dtype: of the weights; they are drawn in float64 and rounded to it.
        overrides: values of the configuration that differ from those in `SIZES`.
    """
    values: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    sizes = {**SIZES, **HYBRIDS, **WRAPPERS}[family]
    if "text_config" in sizes:
        config = AutoConfig.for_model(
            family, **{**sizes, "text_config": {**sizes["text_config"], **values, **overrides}}
        )
    else:
        config = AutoConfig.for_model(family, **{**sizes, **values, **overrides})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # what a family draws itself (biases of a tower, state-space constants) is kept below
        model = auto_class(config).from_config(config, dtype=torch.float64)
    _randomise(model, torch.Generator().manual_seed(seed))
    if dtype == torch.float64 and "num_experts_per_tok" in sizes:
        model.set_experts_implementation("eager")  # the products that are chosen otherwise know no float64
    return model.to(dtype).eval()


def save_tiny_model(family: str, folder: Path) -> Path:
    """Save a tiny model of a family with its tokenizer and return the folder, which `from_pretrained` loads."""
    tiny_model(family).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def save_untold_model(family: str, folder: Path, **settings: Any) -> Path:
    """Save a random model of a family without a size of its own here, with a tokenizer, and return the folder."""
    config = AutoConfig.for_model(family, **{**_ALL_HEADS, "vocab_size": VOCABULARY, "pad_token_id": 2, **settings})
    auto_class(config).from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_calibration(
    languages: int = 3, sequences: int | Sequence[int] = 4, length: int = 12, seed: int = 1
) -> CalibrationSet:
    """Return random calibration sequences; each language mostly uses its own part of the vocabulary.

    Args:
        languages: how many.
        sequences: of each language, or a number for each.
        length: tokens in a sequence.
        seed: of the tokens.
    """
    generator = torch.Generator().manual_seed(seed)
    counts = [sequences] * languages if isinstance(sequences, int) else list(sequences)
    width = (VOCABULARY - len(SPECIAL_TOKENS)) // languages
    parts = [
        len(SPECIAL_TOKENS) + language * width // 2 + torch.randint(width, (count, length), generator=generator)
        for language, count in enumerate(counts)
    ]
    codes = tuple(f"l{language:02d}_Latn" for language in range(languages))
    return CalibrationSet(codes, tuple(parts), "random tokens")


@torch.no_grad()
def _randomise(model: PreTrainedModel, generator: torch.Generator) -> None:
    """Draw weights large enough that blocks differ and attention attends, unlike those of a fresh model."""
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        if parameter.dim() > 1:
            parameter.copy_(noise * 0.3)
        else:
            parameter.add_(noise * 0.1)
