"""The evaluation's benchmark runs at toy size, and what it compares does the same work; no time is asserted."""

import evaluation
import pytest
import torch
from tiny_models import tiny_model, tiny_tokenizer

from mwanda.evaluation.perplexity import Perplexity


@pytest.mark.parametrize("protocol", ["document", "sentence"])
def test_the_ways_run_in_turn(protocol: str) -> None:
    settings = Perplexity(sentences=2, window=64, stride=64, protocol=protocol)
    found = evaluation.table(tiny_model("llama"), tiny_tokenizer(), settings, languages=2, rounds=1)
    ways = [evaluation.BARE, evaluation.CHUNKED, evaluation.OURS]
    assert [row.label.partition(" (")[0] for row in found.rows] == ways
    assert all(len(row.seconds) == len(row.base) == 1 for row in found.rows)
    assert found.title.startswith(settings.definition.name)


@pytest.mark.parametrize("way", [evaluation.bare, evaluation.chunked])
def test_the_bare_ways_pass_the_trunk_and_the_head(way: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "VOCABULARY_CHUNK", 100)
    model, batches = tiny_model("llama"), [torch.tensor([[5, 6, 7]]), torch.tensor([[8, 9], [10, 11]])]
    calls: list[tuple[int, ...]] = []
    model.base_model.register_forward_hook(lambda module, inputs, output: calls.append(output[0].shape))
    with torch.profiler.profile(with_flops=True) as profile:
        way(model, batches)  # type: ignore[operator]
    assert calls == [(1, 3, 16), (2, 2, 16)]
    heads = [event for event in profile.key_averages(group_by_input_shape=True) if event.key == "aten::mm"]
    vocabulary = model.get_output_embeddings().weight.shape[0]
    assert sum(event.flops for event in heads) >= 2 * 16 * vocabulary * (3 + 4)
