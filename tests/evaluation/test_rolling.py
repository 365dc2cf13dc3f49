"""Our losses against lm-eval's rolling log-likelihood on the same text and model."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from tiny_models import tiny_model, tiny_tokenizer

from mwanda.evaluation.perplexity import Perplexity


TEXTS = {
    "one sentence": ["The river is high."],
    "several": ["Bread!", "Snow fell on the hills all night, and by morning the road was gone.", "a"],
    "other scripts": ["Το ποτάμι ανέβηκε.", "川が高い。パンを食べる。", "नदी ऊँची है।"],
}
WINDOWS = (1, 7, 32, 200)
"""In tokens, which are bytes: shorter than each sentence, than the longest ones, than the documents, and longer."""


def rolling(family: str, texts: Sequence[str], window: int) -> list[float]:
    """Return the log-likelihood of each text by lm-eval, which shows the model `window` tokens at once."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    requests = [
        Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=place)
        for place, text in enumerate(texts)
    ]
    theirs = HFLM(pretrained=tiny_model(family), tokenizer=tiny_tokenizer(), max_length=window, batch_size=4)
    found: list[float] = theirs.loglikelihood_rolling(requests, disable_tqdm=True)
    return found


def nats(family: str, sentences: Sequence[str], **settings: Any) -> tuple[float, ...]:
    """Return our loss of each sentence."""
    measure, tokenizer = Perplexity(**settings), tiny_tokenizer()
    texts = measure.texts(tokenizer, {"eng_Latn": sentences})
    return measure.measure(tiny_model(family), tokenizer, texts)["eng_Latn"].losses.nats


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("window", WINDOWS)
def test_a_document_is_that_of_lm_eval(window: int, name: str) -> None:
    sentences = TEXTS[name]
    (theirs,) = rolling("llama", ["".join(sentence + "\n" for sentence in sentences)], window)
    ours = nats("llama", sentences, window=window, stride=window, start_token="first")
    assert math.fsum(ours) == pytest.approx(-theirs, rel=1e-4)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("window", WINDOWS)
def test_each_sentence_alone_is_that_of_lm_eval(window: int, name: str) -> None:
    sentences = TEXTS[name]
    ours = nats("llama", sentences, window=window, stride=window, start_token="first", protocol="sentence")
    assert ours == pytest.approx([-each for each in rolling("llama", sentences, window)], rel=1e-4)


@pytest.mark.parametrize("protocol", ["document", "sentence"])
@pytest.mark.parametrize("family", ["bloom", "gemma3_text", "gpt2"])
def test_so_it_is_for_other_families_and_padded_batches(family: str, protocol: str) -> None:
    sentences = [sentence for part in TEXTS.values() for sentence in part]
    texts = sentences if protocol == "sentence" else ["".join(sentence + "\n" for sentence in sentences)]
    settings = {"window": 32, "stride": 32, "start_token": "first", "batch_tokens": 100, "protocol": protocol}
    theirs = -math.fsum(rolling(family, texts, 32))
    assert math.fsum(nats(family, sentences, **settings)) == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("protocol", ["document", "sentence"])
def test_a_start_token_in_every_window_agrees_where_there_is_one_window_and_only_there(protocol: str) -> None:
    sentences = TEXTS["several"]
    texts = sentences if protocol == "sentence" else ["".join(sentence + "\n" for sentence in sentences)]
    for window, same in ((200, True), (32, False)):
        theirs = -math.fsum(rolling("llama", texts, window))
        ours = math.fsum(nats("llama", sentences, window=window, stride=window, protocol=protocol))
        assert (ours == pytest.approx(theirs, rel=1e-4)) == same
