"""Perplexity and bits per byte against a plain loop over the document."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from typing import TypeVar

import pytest
import torch
from tiny_models import tiny_model, tiny_tokenizer
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from mwanda.errors import ConfigurationError, CorpusError
from mwanda.evaluation.perplexity import LanguagePerplexity, Perplexity, as_record
from mwanda.evaluation.protocol import Protocol


T = TypeVar("T")
SENTENCES = {
    "eng_Latn": ["The river is high.", "Bread!", "A cat sat on the mat, and slept.", "Snow fell."],
    "ell_Grek": ["Το ποτάμι ανέβηκε.", "Ψωμί!", "Μια γάτα κοιμήθηκε."],
    "jpn_Jpan": ["川が高い。", "パン。"],
}
SETTINGS = {
    "disjoint": Perplexity(window=16, stride=16),
    "overlapping": Perplexity(window=16, stride=5),
    "without a start": Perplexity(window=16, stride=16, start_token=False),
    "overlapping without a start": Perplexity(window=16, stride=5, start_token=False),
    "one window": Perplexity(window=200, stride=200),
}


class Recorder:
    """Progress that notes what it was told."""

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.units = 0

    def track(self, items: Sequence[T], title: str, unit: str, weight: Callable[[T], int] = lambda _: 1) -> Iterable[T]:
        """Yield `items`, adding up their weights."""
        self.titles.append(f"{title} {unit}")
        for item in items:
            yield item
            self.units += weight(item)


@cache
def model() -> PreTrainedModel:
    """Return the model that most tests measure."""
    return tiny_model("llama")


def measure(
    settings: Perplexity, sentences: Mapping[str, Sequence[str]] = SENTENCES, seed: int = 0
) -> dict[str, LanguagePerplexity]:
    """Return what is measured of the model."""
    tokenizer = tiny_tokenizer()
    return settings.measure(model(), tokenizer, settings.texts(tokenizer, sentences), seed=seed)


@torch.no_grad()
def plain_losses(settings: Perplexity, sentences: Sequence[str]) -> list[float]:
    """Return the losses of a document, predicting one token at a time from what its window shows."""
    tokenizer = tiny_tokenizer()
    tokens = tokenizer.encode("".join(sentence + "\n" for sentence in sentences), add_special_tokens=False)
    lead = [tokenizer.bos_token_id] if settings.start_token else []
    found = []
    for place, token in enumerate(tokens):
        block = place // settings.stride * settings.stride
        end = min(block + settings.stride, len(tokens))
        begin = max(0, min(end - settings.window, block if lead else block - 1))
        seen = lead + tokens[begin:place]
        if seen:
            logits = model()(input_ids=torch.tensor([seen])).logits[0, -1]
            found.append(float(cross_entropy(logits, torch.tensor(token))))
    return found


@pytest.mark.parametrize("name", SETTINGS)
def test_perplexity_is_that_of_a_plain_loop(name: str) -> None:
    measured = measure(SETTINGS[name])
    assert list(measured) == list(SENTENCES)
    for code, sentences in SENTENCES.items():
        losses = plain_losses(SETTINGS[name], sentences)
        size = sum(len(sentence.encode()) + 1 for sentence in sentences)
        assert measured[code].perplexity == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-5)
        assert measured[code].bits_per_byte == pytest.approx(sum(losses) / math.log(2) / size, rel=1e-5)
        assert (measured[code].tokens, measured[code].bytes) == (len(losses), size)


def test_the_settings_that_the_protocol_names_do_change_the_result() -> None:
    assert len({measure(settings)["eng_Latn"].perplexity for settings in SETTINGS.values()}) == len(SETTINGS)


@pytest.mark.parametrize("batch_tokens", [1, 17, 40, 10_000])
def test_the_size_of_a_batch_changes_nothing(batch_tokens: int) -> None:
    settings = Perplexity(window=16, stride=7, batch_tokens=100)
    expected, found = measure(settings), measure(replace(settings, batch_tokens=batch_tokens))
    for code, one in expected.items():
        assert vars(found[code]) == pytest.approx(vars(one), rel=1e-5)


def test_a_language_does_not_depend_on_the_others() -> None:
    """Alone, no window of a language is padded to the length of another's."""
    settings = Perplexity(window=64, stride=64, batch_tokens=1000)
    together = measure(settings)
    for code, sentences in SENTENCES.items():
        alone = measure(settings, {code: sentences})[code]
        assert vars(alone) == pytest.approx(vars(together[code]), rel=1e-5)


def test_a_head_that_is_not_known_gives_the_same_perplexity() -> None:
    """Doubling the logits by a hook is what doubling the head's weight does."""
    settings = Perplexity(window=16, stride=16)
    tokenizer = tiny_tokenizer()
    texts = settings.texts(tokenizer, SENTENCES)
    hooked, doubled = tiny_model("llama"), tiny_model("llama")
    hooked.get_output_embeddings().register_forward_hook(lambda module, inputs, logits: 2 * logits)
    with torch.no_grad():
        doubled.get_output_embeddings().weight.mul_(2)
    expected, found = settings.measure(doubled, tokenizer, texts), settings.measure(hooked, tokenizer, texts)
    for code, one in expected.items():
        assert vars(found[code]) == pytest.approx(vars(one), rel=1e-5)


def test_the_interval_holds_the_perplexity_and_depends_on_the_seed_only() -> None:
    settings = Perplexity(window=64, stride=64)
    first, again, other = measure(settings, seed=1), measure(settings, seed=1), measure(settings, seed=2)
    assert first == again
    for one in first.values():
        assert one.low < one.perplexity < one.high
    assert (first["eng_Latn"].low, first["eng_Latn"].high) != (other["eng_Latn"].low, other["eng_Latn"].high)
    assert first["eng_Latn"].perplexity == other["eng_Latn"].perplexity


def test_more_sentences_give_a_narrower_interval() -> None:
    few = measure(Perplexity(window=64, stride=64), {"eng_Latn": SENTENCES["eng_Latn"]})["eng_Latn"]
    many = measure(Perplexity(window=64, stride=64), {"eng_Latn": SENTENCES["eng_Latn"] * 10})["eng_Latn"]
    assert many.high - many.low < (few.high - few.low) / 2


def test_one_sentence_gives_no_interval() -> None:
    measured = measure(Perplexity(sentences=1))
    assert all(math.isnan(one.low) and math.isnan(one.high) for one in measured.values())
    record = as_record(measured)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["eng_Latn"]["low"] is None
    assert record["eng_Latn"]["high"] is None
    assert record["eng_Latn"]["perplexity"] == measured["eng_Latn"].perplexity


def test_the_record_holds_every_number_of_every_language() -> None:
    measured = measure(Perplexity())
    assert as_record(measured) == {code: vars(one) for code, one in measured.items()}


def test_the_first_sentences_are_taken_when_a_number_is_given() -> None:
    shorter = {code: sentences[:2] for code, sentences in SENTENCES.items()}
    assert measure(Perplexity(sentences=2)) == measure(Perplexity(), shorter)


def test_each_token_belongs_to_the_sentence_that_it_came_from() -> None:
    tokenizer = tiny_tokenizer()
    text = Perplexity().texts(tokenizer, SENTENCES)["ell_Grek"]
    for owner, sentence in enumerate(SENTENCES["ell_Grek"]):
        own = [token for token, each in zip(text.tokens, text.owners, strict=True) if each == owner]
        assert tokenizer.decode(own) == sentence + "\n"
        assert text.sizes[owner] == len(sentence.encode()) + 1


def test_progress_counts_the_scored_tokens() -> None:
    settings, tokenizer, progress = Perplexity(window=16, stride=16), tiny_tokenizer(), Recorder()
    measured = settings.measure(model(), tokenizer, settings.texts(tokenizer, SENTENCES), progress, title="dense")
    assert progress.units == sum(one.tokens for one in measured.values())
    assert progress.titles == ["dense tokens"]


def test_the_protocol_is_the_settings_that_change_the_result() -> None:
    settings = Perplexity(window=64, stride=32, start_token=False, sentences=5)
    assert settings.protocol == Protocol(window=64, stride=32, start_token=False, sentences=5)
    names = {each.name for each in fields(Perplexity)} - {each.name for each in fields(Protocol)}
    assert names == {"batch_tokens", "resamples"}


def test_a_stride_beyond_the_window_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"evaluation\.stride=9: exceeds evaluation\.window=8"):
        Perplexity(window=8, stride=9)


def test_a_language_without_text_is_refused_by_name() -> None:
    with pytest.raises(CorpusError, match=r"ell_Grek has no evaluation text.*evaluation\.corpus="):
        Perplexity().texts(tiny_tokenizer(), {"eng_Latn": ["Yes."], "ell_Grek": []})
