"""The exported checkpoint is the pruned model."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_models import tiny_model, tiny_tokenizer

from mwanda.export.checkpoint import Checkpoint, card
from mwanda.models import LoadedModel, blocks_of
from mwanda.system.ownership import sign


@pytest.fixture
def results() -> dict[str, Any]:
    return {
        "config_hash": "0123456789abcdef",
        "model": {"id": "some/model", "revision": "abc"},
        "criterion": {"name": "wanda"},
        "schedule": {"name": "owl"},
        "sparsity": {"achieved": 0.5, "pattern": "unstructured"},
        "perplexity": {
            "dense": {"eng_Latn": {"perplexity": 10.0}, "swh_Latn": {"perplexity": 20.0}},
            "pruned": {"eng_Latn": {"perplexity": 12.5}, "swh_Latn": {"perplexity": None}},
        },
    }


@pytest.mark.parametrize("family", ["bloom", "gpt2", "gemma3_text"])
def test_from_pretrained_gives_the_same_zeros_and_logits(family: str, tmp_path: Path, results: dict[str, Any]) -> None:
    model = tiny_model(family)
    for block in blocks_of(model):
        for matrix in block.matrices:
            matrix.weight[:, ::3] = 0
    loaded = LoadedModel("id", None, model, tiny_tokenizer(), torch.device("cpu"))

    path = Checkpoint().write(loaded, results, tmp_path)

    assert path == tmp_path / "model"
    assert [each.name for each in tmp_path.iterdir()] == ["model"]
    again = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    assert type(again) is type(model)
    tokens = torch.tensor([tokenizer.encode("Habari ya asubuhi")])
    assert tokens.tolist() == [tiny_tokenizer().encode("Habari ya asubuhi")]
    with torch.no_grad():
        torch.testing.assert_close(again(tokens).logits, model(tokens).logits, rtol=0, atol=0)
    for before, after in zip(blocks_of(model), blocks_of(again), strict=True):
        for one, other in zip(before.matrices, after.matrices, strict=True):
            assert torch.equal(one.weight, other.weight)
            assert bool((other.weight[:, ::3] == 0).all())


def test_a_second_export_replaces_the_first(tmp_path: Path, results: dict[str, Any]) -> None:
    loaded = LoadedModel("id", None, tiny_model("bloom"), tiny_tokenizer(), torch.device("cpu"))
    Checkpoint().write(loaded, results, tmp_path)
    (tmp_path / "model" / "stale.bin").touch()
    sign(tmp_path / "model")  # as if the first export had written it
    Checkpoint().write(loaded, results, tmp_path)
    assert not (tmp_path / "model" / "stale.bin").exists()


def test_the_card_says_what_was_done_and_what_it_cost(results: dict[str, Any]) -> None:
    text = card(results)
    for expected in (
        "# some/model, pruned to 50.0%",
        "revision abc",
        "wanda, owl",
        "unstructured",
        "0123456789abcdef",
        "| eng_Latn | 10.00 | 12.50 |",
        "| swh_Latn | 20.00 | – |",
        "Zeros are not speed",
    ):
        assert expected in text


def test_the_card_of_a_run_without_evaluation_has_no_table(results: dict[str, Any]) -> None:
    assert "| language |" not in card(results | {"perplexity": {}})
