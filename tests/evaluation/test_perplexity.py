"""Perplexity and bits per byte against a plain loop over the document."""

import json
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import cache
from typing import Literal, TypeVar

import pytest
import torch
from tiny_models import tiny_model, tiny_tokenizer
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from mwanda.errors import ConfigurationError, CorpusError, EvaluationError
from mwanda.evaluation.finite import Which
from mwanda.evaluation.perplexity import LanguagePerplexity, Perplexity, _by_length, as_record
from mwanda.evaluation.protocol import Protocol, Window
from mwanda.evaluation.significance import compare


T = TypeVar("T")
SENTENCES = {
    "eng_Latn": ["The river is high.", "Bread!", "A cat sat on the mat, and slept.", "Snow fell."],
    "ell_Grek": ["Το ποτάμι ανέβηκε.", "Ψωμί!", "Μια γάτα κοιμήθηκε."],
    "jpn_Jpan": ["川が高い。", "パン。"],
}
SETTINGS = {
    "disjoint": Perplexity(window=16, stride=16),
    "overlapping": Perplexity(window=16, stride=5),
    "a start at the first": Perplexity(window=16, stride=16, start_token="first"),
    "overlapping with a start at the first": Perplexity(window=16, stride=5, start_token="first"),
    "without a start": Perplexity(window=16, stride=16, start_token=False),
    "overlapping without a start": Perplexity(window=16, stride=5, start_token=False),
    "sentences": Perplexity(window=200, stride=200, protocol="sentence"),
    "sentences in windows": Perplexity(window=16, stride=5, protocol="sentence"),
    "sentences without a start": Perplexity(window=16, stride=16, protocol="sentence", start_token=False),
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


def numbers(measured: LanguagePerplexity) -> dict[str, float]:
    """Return every number of what was measured by name."""
    units = {f"nats {place}": nats for place, nats in enumerate(measured.losses.nats)}
    return {name: value for name, value in vars(measured).items() if name != "losses"} | units


@torch.no_grad()
def plain_losses(settings: Perplexity, sentences: Sequence[str]) -> list[float]:
    """Return the losses of all texts, predicting one token at a time from what its window shows."""
    tokenizer = tiny_tokenizer()
    document = "".join(sentence + "\n" for sentence in sentences)
    found = []
    for text in sentences if settings.protocol == "sentence" else [document]:
        tokens = tokenizer.encode(text, add_special_tokens=False)
        for place, token in enumerate(tokens):
            block = place // settings.stride * settings.stride
            end = min(block + settings.stride, len(tokens))
            led = settings.start_token is True or (settings.start_token == "first" and end <= settings.window)
            lead = [tokenizer.bos_token_id] if led else []
            # The last token that a window predicts is seen after `window` others, the start token among them.
            begin = max(0, min(end - settings.window - (not led), block - (not led)))
            seen = lead + tokens[begin:place]
            if seen:
                logits = model()(input_ids=torch.tensor([seen])).logits[0, -1]
                found.append(float(cross_entropy(logits, torch.tensor(token))))
    return found


def scored_extent(settings: Perplexity, sentences: Sequence[str]) -> tuple[int, int]:
    """Return bytes and characters of what is scored: a token is a byte, and a character with a scored byte counts."""
    texts = list(sentences) if settings.protocol == "sentence" else ["".join(each + "\n" for each in sentences)]
    unscored = [] if settings.start_token else [text[0] for text in texts]
    alone = sum(letter.isascii() for letter in unscored)
    return sum(len(text.encode()) for text in texts) - len(unscored), sum(map(len, texts)) - alone


@pytest.mark.parametrize("name", SETTINGS)
def test_perplexity_is_that_of_a_plain_loop(name: str) -> None:
    measured = measure(SETTINGS[name])
    assert list(measured) == list(SENTENCES)
    for code, sentences in SENTENCES.items():
        losses = plain_losses(SETTINGS[name], sentences)
        size, characters = scored_extent(SETTINGS[name], sentences)
        assert measured[code].perplexity == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-5)
        assert measured[code].bits_per_byte == pytest.approx(sum(losses) / math.log(2) / size, rel=1e-5)
        assert measured[code].bits_per_character == pytest.approx(sum(losses) / math.log(2) / characters, rel=1e-5)
        assert (measured[code].tokens, measured[code].bytes) == (len(losses), size)
        assert measured[code].characters == characters


def test_the_settings_that_the_protocol_names_do_change_the_result() -> None:
    assert len({measure(settings)["eng_Latn"].perplexity for settings in SETTINGS.values()}) == len(SETTINGS)


@pytest.mark.parametrize("batch_tokens", [1, 17, 40, 10_000])
def test_the_size_of_a_batch_changes_nothing(batch_tokens: int) -> None:
    settings = Perplexity(window=16, stride=7, batch_tokens=100)
    expected, found = measure(settings), measure(replace(settings, batch_tokens=batch_tokens))
    for code, one in expected.items():
        assert numbers(found[code]) == pytest.approx(numbers(one), rel=1e-5)


@pytest.mark.parametrize(
    ("lengths", "batch_tokens", "expected"),
    [
        ([8] * 10, 32, [4, 3, 3]),
        ([8] * 9, 32, [3, 3, 3]),
        ([8] * 3, 5, [1, 1, 1]),
        ([30, 20, 10, 3, 2, 1], 40, [1, 1, 4]),  # more than two of the first do not fit together
        ([9, 1, 1, 1, 1], 10, [1, 4]),
        ([], 10, []),
    ],
    ids=str,
)
def test_batches_are_as_few_as_can_be_and_of_equal_size(
    lengths: list[int], batch_tokens: int, expected: list[int]
) -> None:
    cut = [("eng_Latn", Window((0,) * length, 1, place)) for place, length in enumerate(lengths)]
    assert [len(batch) for batch in _by_length(cut[::-1], batch_tokens)] == expected


def test_batches_hold_every_window_once_and_no_more_tokens_than_they_may() -> None:
    draw = random.Random(0)
    for _ in range(300):
        batch_tokens, longest = draw.randint(1, 200), draw.choice([5, 50, 300])
        lengths = [draw.randint(1, longest) for _ in range(draw.randint(1, 60))]
        cut = [("eng_Latn", Window((0,) * length, 1, place)) for place, length in enumerate(lengths)]
        batches = _by_length(cut, batch_tokens)
        assert sorted(window.first for batch in batches for _, window in batch) == list(range(len(cut)))
        for batch in batches:
            assert len(batch) == 1 or len(batch[0][1].tokens) * len(batch) <= batch_tokens
        assert len(batches) == filled_one_after_the_other(sorted(lengths, reverse=True), batch_tokens)


def filled_one_after_the_other(lengths: list[int], batch_tokens: int) -> int:
    """Return how many batches there are if each takes what it holds, the longest first; none can do with fewer."""
    count = 0
    while lengths:
        lengths = lengths[max(1, batch_tokens // lengths[0]) :]
        count += 1
    return count


def test_a_language_does_not_depend_on_the_others() -> None:
    """Alone, no window of a language is padded to the length of another's."""
    settings = Perplexity(window=64, stride=64, batch_tokens=1000)
    together = measure(settings)
    for code, sentences in SENTENCES.items():
        alone = measure(settings, {code: sentences})[code]
        assert numbers(alone) == pytest.approx(numbers(together[code]), rel=1e-5)


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
        assert numbers(found[code]) == pytest.approx(numbers(one), rel=1e-5)


def test_the_interval_holds_the_perplexity_and_depends_on_the_seed_only() -> None:
    settings = Perplexity(window=64, stride=64)
    sentences = {code: part * 3 for code, part in SENTENCES.items()}
    first, again, other = (measure(settings, sentences, seed) for seed in (1, 1, 2))
    assert first == again
    for one in first.values():
        assert one.low < one.perplexity < one.high
        assert one.bits_per_byte_low < one.bits_per_byte < one.bits_per_byte_high
        assert one.bits_per_character_low < one.bits_per_character < one.bits_per_character_high
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


def test_the_record_holds_every_number_of_every_language_and_no_sentence() -> None:
    measured = measure(Perplexity())
    expected = {
        code: {name: vars(one)[name] for name in vars(one) if name != "losses"} for code, one in measured.items()
    }
    assert as_record(measured) == expected


@pytest.mark.parametrize("name", SETTINGS)
def test_sentences_add_up_to_the_language(name: str) -> None:
    for one in measure(SETTINGS[name]).values():
        assert (sum(one.losses.tokens), sum(one.losses.bytes)) == (one.tokens, one.bytes)
        assert sum(one.losses.characters) == one.characters
        assert math.exp(sum(one.losses.nats) / one.tokens) == pytest.approx(one.perplexity)


def test_what_was_measured_survives_json_whole() -> None:
    """As it is kept in the checkpoint of a run, infinity included."""
    measured = measure(Perplexity(sentences=2))["eng_Latn"]
    for one in (
        measured,
        replace(measured, perplexity=math.inf, losses=replace(measured.losses, nats=(math.inf, 1.0))),
    ):
        assert LanguagePerplexity(**json.loads(json.dumps(asdict(one)))) == one


def test_a_sentence_of_the_sentence_protocol_is_seen_alone() -> None:
    settings = Perplexity(protocol="sentence")
    together = measure(settings)["eng_Latn"].losses
    alone = [measure(settings, {"eng_Latn": [sentence]})["eng_Latn"] for sentence in SENTENCES["eng_Latn"]]
    assert together.nats == pytest.approx([each.losses.nats[0] for each in alone], rel=1e-5)
    assert together.nats != pytest.approx(measure(Perplexity())["eng_Latn"].losses.nats, rel=1e-2)


@pytest.mark.parametrize("protocol", ["document", "sentence"])
def test_nothing_but_scored_text_counts_when_a_first_token_is_not_scored(
    protocol: Literal["document", "sentence"],
) -> None:
    """The tiny tokenizer has a token for each byte: a bit a byte is a bit a token, whatever is left out."""
    for one in measure(Perplexity(protocol=protocol, start_token=False)).values():
        assert one.losses.tokens == one.losses.bytes


def test_a_sentence_of_one_token_that_is_not_scored_does_not_count() -> None:
    settings = Perplexity(protocol="sentence", start_token=False)
    one = measure(settings, {"eng_Latn": ["A", "It rains.", "Go!"]})["eng_Latn"]
    same = measure(settings, {"eng_Latn": ["It rains.", "Go!"]})["eng_Latn"]
    assert one.losses.tokens == (0, 8, 2)
    assert numbers(replace(one, losses=same.losses)) == pytest.approx(numbers(same))


def test_the_first_sentences_are_taken_when_a_number_is_given() -> None:
    shorter = {code: sentences[:2] for code, sentences in SENTENCES.items()}
    assert measure(Perplexity(sentences=2)) == measure(Perplexity(), shorter)


def test_each_token_belongs_to_the_sentence_that_it_came_from() -> None:
    tokenizer = tiny_tokenizer()
    text = Perplexity().texts(tokenizer, SENTENCES)["ell_Grek"]
    for owner, sentence in enumerate(SENTENCES["ell_Grek"]):
        own = [token for token, each in zip(text.tokens, text.sentence_ids, strict=True) if each == owner]
        assert tokenizer.decode(own) == sentence + "\n"
        assert text.sizes[owner] == len(sentence.encode()) + 1


def test_progress_counts_the_scored_tokens() -> None:
    settings, tokenizer, progress = Perplexity(window=16, stride=16), tiny_tokenizer(), Recorder()
    measured = settings.measure(model(), tokenizer, settings.texts(tokenizer, SENTENCES), progress, "pruned")
    assert progress.units == sum(one.tokens for one in measured.values())
    assert progress.titles == ["evaluate pruned tokens"]


def test_the_protocol_is_the_settings_that_change_the_result() -> None:
    settings = Perplexity(window=64, stride=32, start_token=False, sentences=5)
    assert settings.definition == Protocol(window=64, stride=32, start_token=False, sentences=5)
    alone = replace(settings, protocol="sentence").definition
    assert alone == replace(settings.definition, join="", name="sentence/1")
    names = {each.name for each in fields(Perplexity)} - {each.name for each in fields(Protocol)}
    assert names == {"batch_tokens", "resamples", "protocol"}


def test_a_stride_beyond_the_window_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"evaluation\.stride=9: exceeds evaluation\.window=8"):
        Perplexity(window=8, stride=9)


def test_a_language_without_text_is_refused_by_name() -> None:
    with pytest.raises(CorpusError, match=r"ell_Grek has no evaluation text.*evaluation\.corpus="):
        Perplexity().texts(tiny_tokenizer(), {"eng_Latn": ["Yes."], "ell_Grek": []})


def spoilt(what: str) -> PreTrainedModel:
    """Return a model whose logits are no numbers, or of which one is infinite."""
    broken = tiny_model("llama", max_position_embeddings=1024)
    with torch.no_grad():
        if what == "no number":
            broken.model.norm.weight[0] = math.nan
        else:  # of a token that no text holds
            broken.lm_head.weight[tiny_tokenizer().pad_token_id, 0] = math.inf
    return broken


@pytest.mark.parametrize("which", ["dense", "pruned"])
def test_a_model_whose_logits_are_no_numbers_is_refused(which: Which) -> None:
    settings, tokenizer = Perplexity(window=16, stride=16), tiny_tokenizer()
    texts = settings.texts(tokenizer, SENTENCES)
    with pytest.raises(EvaluationError, match=rf"the {which} model gives no number .* in {next(iter(SENTENCES))}"):
        settings.measure(spoilt("no number"), tokenizer, texts, which=which)


def test_a_pruned_model_whose_loss_is_infinite_is_measured_and_counts_as_hurt() -> None:
    settings, tokenizer = Perplexity(window=16, stride=16), tiny_tokenizer()
    texts = settings.texts(tokenizer, SENTENCES)
    found = settings.measure(spoilt("infinite"), tokenizer, texts, which="pruned")
    assert {one.perplexity for one in found.values()} == {math.inf}
    assert not any(math.isnan(nats) for one in found.values() for nats in one.losses.nats)
    before = settings.measure(model(), tokenizer, texts)
    compared = compare(*({code: one.losses for code, one in each.items()} for each in (before, found)))
    assert all(pair.hurt and pair.lost for pair in compared.pairs.values())
    assert not any(pair.hurt for pair in compare(*[{c: one.losses for c, one in before.items()}] * 2).pairs.values())
    with pytest.raises(EvaluationError, match="the dense model has an infinite perplexity"):
        settings.measure(spoilt("infinite"), tokenizer, texts)


def test_text_of_which_no_token_can_be_scored_is_refused() -> None:
    settings = Perplexity(window=16, stride=16, start_token=False, protocol="sentence")
    with pytest.raises(CorpusError, match="eng_Latn: its evaluation text has no token to score"):
        settings.texts(tiny_tokenizer(), {"eng_Latn": ["a", "b"]})
    assert settings.texts(tiny_tokenizer(), {"eng_Latn": ["a", "bc"]})
