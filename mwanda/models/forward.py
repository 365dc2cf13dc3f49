"""Runs tokens through a model for its hidden states, whatever its architecture."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import masking_utils
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES


Architecture = Literal["causal", "encoder-decoder", "encoder-only"]


def architecture_of(model_or_config: Any) -> Architecture:
    """Return what `config` says of the direction in which a model reads; one without a configuration is causal."""
    config = getattr(model_or_config, "config", model_or_config)
    if getattr(config, "is_encoder_decoder", False):
        return "encoder-decoder"
    # Encoders that transformers can also run as decoders (XLM-R) say by `is_decoder` which of the two is meant.
    masked = getattr(config, "model_type", "") in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return "encoder-only" if masked and not getattr(config, "is_decoder", False) else "causal"


def is_causal(model_or_config: Any) -> bool:
    """Return whether a model predicts each token from those before it alone, so that it has a perplexity."""
    return architecture_of(model_or_config) == "causal"


def forward(model: nn.Module, tokens: Int[Tensor, "B T"]) -> object:
    """Run `tokens` through all blocks, without a cache and without the LM head, and return what the last stack returns.

    An encoder-decoder reads the tokens in its encoder and is taught the same tokens in its decoder, shifted right by
    its start token: both stacks see sequences of one shape.
    """
    architecture = architecture_of(model)
    if architecture == "encoder-decoder":
        return _encode_and_decode(model, tokens)
    trunk = getattr(model, "base_model", model)
    options = {"use_cache": False} if architecture == "causal" else {}
    output: object = trunk(input_ids=tokens, **options)
    return output


@contextmanager
def one_text_a_row() -> Iterator[None]:
    """Say that no row of tokens holds several texts, which transformers else asks of a device at each forward pass."""
    ask = masking_utils.find_packed_sequence_indices
    masking_utils.find_packed_sequence_indices = lambda position_ids: None  # what it returns where positions rise by 1
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = ask


def shift_right(tokens: Int[Tensor, "B T"], start: int) -> Int[Tensor, "B T"]:
    """Return what the decoder reads to predict `tokens`: `start` before them, the last one left out."""
    return torch.cat([torch.full_like(tokens[:, :1], start), tokens[:, :-1]], dim=1)


def _encode_and_decode(model: Any, tokens: Int[Tensor, "B T"]) -> object:
    # The stacks are called themselves, as the base model of some families (mT5) is the model with its LM head.
    states = model.get_encoder()(input_ids=tokens).last_hidden_state
    output: object = model.get_decoder()(
        input_ids=shift_right(tokens, decoder_start(model.config)), encoder_hidden_states=states, use_cache=False
    )
    return output


def decoder_start(config: Any) -> int:
    """Return the token that the decoder starts with; models that do not say it start with padding, as T5 does."""
    candidates = (getattr(config, name, None) for name in ("decoder_start_token_id", "pad_token_id"))
    return next((int(token) for token in candidates if token is not None), 0)


def input_device(model: nn.Module) -> torch.device:
    """Return where tokens have to be: with the first weight that is anywhere."""
    return next(parameter.device for parameter in model.parameters() if not parameter.is_meta)
