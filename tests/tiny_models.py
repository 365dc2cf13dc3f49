"""Tiny random models of many families, with a tokenizer and calibration data that fit them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from mwanda.calibration import CalibrationSet


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

_AUTO_CLASSES: dict[str, Any] = {
    **dict.fromkeys(("t5", "mt5", "m2m_100", "mbart"), AutoModelForSeq2SeqLM),
    **dict.fromkeys(("xlm-roberta", "xlm-roberta-xl"), AutoModelForMaskedLM),
}


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
        family: the `model_type` of its configuration.
        seed: of the weights.
        dtype: of the weights; they are drawn in float64 and rounded to it.
        overrides: values of the configuration that differ from those in `SIZES`.
    """
    special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    config = AutoConfig.for_model(family, **{**SIZES[family], "vocab_size": VOCABULARY, **special, **overrides})
    model = _AUTO_CLASSES.get(family, AutoModelForCausalLM).from_config(config, dtype=torch.float64)
    _randomise(model, torch.Generator().manual_seed(seed))
    if dtype == torch.float64 and "num_experts_per_tok" in SIZES[family]:
        model.set_experts_implementation("eager")  # the products that are chosen otherwise know no float64
    return model.to(dtype).eval()


def save_tiny_model(family: str, folder: Path) -> Path:
    """Save a tiny model of a family with its tokenizer and return the folder, which `from_pretrained` loads."""
    tiny_model(family).save_pretrained(folder)
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
