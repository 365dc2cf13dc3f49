"""Which way a model reads, and running it for its hidden states; `test_families.py` compares with whole passes."""

from types import SimpleNamespace

import pytest
import torch
from plain_decoder import PlainDecoder
from tiny_models import tiny_model
from transformers import AutoConfig

from mwanda.models.forward import architecture_of, forward, is_causal, shift_right


TOKENS = torch.tensor([[5, 6, 7], [8, 9, 10]])


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("llama", "causal"),
        ("bloom", "causal"),
        ("qwen3_moe", "causal"),
        ("mt5", "encoder-decoder"),
        ("m2m_100", "encoder-decoder"),
        ("mbart", "encoder-decoder"),
        ("xlm-roberta", "encoder-only"),
        ("modernbert", "encoder-only"),
    ],
)
def test_a_configuration_says_which_way_the_model_reads(model_type: str, expected: str) -> None:
    config = AutoConfig.for_model(model_type)
    assert architecture_of(config) == architecture_of(SimpleNamespace(config=config)) == expected
    assert is_causal(config) == (expected == "causal")


def test_an_encoder_that_is_set_up_as_a_decoder_is_causal() -> None:
    assert is_causal(AutoConfig.for_model("xlm-roberta", is_decoder=True))


def test_a_model_without_a_configuration_is_run_as_it_is() -> None:
    model = PlainDecoder()
    assert is_causal(model)
    assert torch.equal(forward(model, TOKENS), model(TOKENS))


def test_the_decoder_reads_the_start_token_and_all_but_the_last() -> None:
    assert shift_right(TOKENS, 2).tolist() == [[2, 5, 6], [2, 8, 9]]


@pytest.mark.parametrize("family", ["bloom", "mt5", "m2m_100", "xlm-roberta", "mixtral"])
@torch.no_grad()
def test_hidden_states_come_without_cache_and_without_the_head(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(family)
    monkeypatch.setattr(model.get_output_embeddings(), "forward", None)
    output = forward(model, TOKENS)
    assert output.last_hidden_state.shape == (*TOKENS.shape, model.config.hidden_size)
    assert getattr(output, "past_key_values", None) is None


def test_a_decoder_whose_start_is_not_given_starts_with_padding() -> None:
    model = tiny_model("t5")
    first = forward(model, TOKENS).last_hidden_state
    model.config.decoder_start_token_id = None
    assert model.config.pad_token_id == 2
    assert torch.equal(forward(model, TOKENS).last_hidden_state, first)
