"""What a model's configuration allows, before its weights are loaded."""

from typing import Any

import pytest
import tiny_job
import torch
from tiny_models import save_tiny_model, tiny_model, tiny_tokenizer
from transformers import AutoConfig

from mwanda.errors import ConfigurationError, ModelError
from mwanda.job.run import run
from mwanda.models.limits import check_config, check_positions, check_tokens, positions_of


@pytest.mark.parametrize(
    ("family", "settings", "expected"),
    [
        ("gpt2", {"n_positions": 48}, 48),
        ("opt", {}, 256),
        ("llama", {}, 256),
        ("gemma3", {}, 256),
        ("bloom", {}, None),
        ("t5", {}, None),
        ("xlm-roberta", {"max_position_embeddings": 260}, 257),
        ("m2m_100", {}, 256),
    ],
)
def test_positions_are_those_that_text_can_use(family: str, settings: dict[str, Any], expected: int | None) -> None:
    assert positions_of(tiny_model(family, **settings)) == expected


def test_roberta_reads_as_many_tokens_as_it_is_said_to_and_no_more() -> None:
    model = tiny_model("xlm-roberta")
    positions = positions_of(model)
    assert positions is not None
    model(torch.full((1, positions), 7))
    with pytest.raises((IndexError, RuntimeError), match=r"out of (range|bounds)"):
        model(torch.full((1, positions + 1), 7))


def test_longer_sequences_are_an_error_that_names_the_key_and_what_would_do() -> None:
    model = tiny_model("gpt2", n_positions=48)
    check_positions(model, "folder", {"calibration.length": (48, 48), "evaluation.window": (47, 48)})
    with pytest.raises(ConfigurationError, match=r"calibration\.length=64: folder has 48 positions; choices: 48"):
        check_positions(model, "folder", {"calibration.length": (64, 64)})
    with pytest.raises(ConfigurationError, match=r"window=64: with the token that starts a text, 65, .*choices: 47"):
        check_positions(model, "folder", {"evaluation.window": (64, 65)})
    check_positions(model, "folder", {"evaluation.window": (512, 40)})  # no text is as long


@pytest.mark.parametrize("key", ["calibration.length", "evaluation.window"])
def test_a_job_that_would_read_too_much_is_refused_before_anything_is_loaded(
    key: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    tiny_model("gpt2", n_positions=48).save_pretrained(model)
    tiny_tokenizer().save_pretrained(model)
    monkeypatch.setattr("mwanda.models.source.PretrainedModel.load", lambda *_: pytest.fail("it was loaded"))
    settings = {"calibration.length": 16, "evaluation.window": 32, "evaluation.stride": 32} | {key: 64}
    typed = tiny_job.overrides(model, *(f"{name}={value}" for name, value in settings.items()))
    with pytest.raises(ConfigurationError) as caught:
        run(tiny_job.spec(tmp_path / "run", typed))
    assert caught.value.key == key
    assert not (tmp_path / "run").exists()


def test_tokens_beyond_the_embedding_are_an_error_that_names_one() -> None:
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    check_tokens(model, "folder", tokenizer, {"the text": [3, 258]})
    tokenizer.add_tokens(["the"])
    with pytest.raises(ModelError, match=r"token 259 \(the\) of the text, and its embedding has 259 rows"):
        check_tokens(model, "folder", tokenizer, {"the text": [3, 259, 5]})


def test_a_decoder_that_starts_beyond_the_embedding_is_an_error() -> None:
    model = tiny_model("m2m_100", decoder_start_token_id=300)
    with pytest.raises(ModelError, match=r"token 300 .* of the start of the decoder"):
        check_tokens(model, "folder", tiny_tokenizer(), {})


def test_a_job_with_tokens_beyond_the_embedding_is_refused(tmp_path: Any) -> None:
    model = save_tiny_model("bloom", tmp_path / "model")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["the", "na"])
    tokenizer.save_pretrained(model)
    with pytest.raises(ModelError, match="of the calibration text, and its embedding has 259 rows"):
        tiny_job.run(model, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("family", "settings", "said"),
    [
        ("gpt2", {"n_layer": 0}, "num_hidden_layers=0 makes no sense"),
        ("llama", {"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000 makes no sense"),
        ("t5", {"num_decoder_layers": -1}, "num_decoder_layers=-1 makes no sense"),
        ("m2m_100", {"decoder_layers": 0}, "decoder_layers=0 makes no sense"),
        ("gemma3", {"text_config": {"num_hidden_layers": 0}}, "num_hidden_layers=0 makes no sense"),
        ("gpt2", {"n_positions": 0}, "max_position_embeddings=0 makes no sense"),
        ("llama", {"quantization_config": {"quant_method": "gptq"}}, r"quantised \(gptq\)"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantised"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_an_error(family: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=rf"model\.path=folder: config\.json.*{said}"):
        check_config(AutoConfig.for_model(family, **settings), "folder")


def test_a_configuration_that_makes_sense_is_none() -> None:
    for family in ("gpt2", "llama", "t5", "m2m_100", "bloom", "gemma3", "xlm-roberta"):
        check_config(tiny_model(family).config, "folder")
