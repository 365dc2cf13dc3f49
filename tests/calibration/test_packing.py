"""Sequences without padding, batches that know their languages, and the fingerprint."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretend_device import DEVICE, pretend
from tiny_models import tiny_calibration, tiny_tokenizer

from mwanda.calibration.packing import CalibrationSet, check_no_padding, document_start, pack, stream_tokens
from mwanda.errors import CorpusError


START = 7


def small_set(codes: tuple[str, ...] = ("deu_Latn", "fra_Latn"), tokens: int = 0) -> CalibrationSet:
    """Return two sequences of the first language and one of the second."""
    parts = (torch.tensor([[1, 2], [3, 4]]), torch.tensor([[5, tokens]]))
    return CalibrationSet(codes, parts, "by hand")


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(2, 9), st.sampled_from([None, START]), st.integers(0, 9))
def test_packing_cuts_the_stream_and_leaves_out_what_fills_no_sequence(
    count: int, length: int, start: int | None, at_most: int
) -> None:
    tokens = list(range(100, 100 + count))
    packed = pack(tokens, length, start, at_most)
    body = packed if start is None else packed[:, 1:]
    assert packed.shape == (min(at_most, count // body.shape[1]), length)
    assert body.flatten().tolist() == tokens[: body.numel()]
    assert start is None or packed[:, 0].tolist() == [start] * len(packed)


def test_packing_reads_no_more_than_a_token_too_many() -> None:
    """So that an endless corpus is no obstacle."""
    stream = iter(range(1000))
    pack(stream, 5, START, 3)
    assert next(stream) <= 13


def test_the_stream_is_the_text_with_a_break_after_each_sentence() -> None:
    tokenizer = tiny_tokenizer()
    assert tokenizer.decode(list(stream_tokens(tokenizer, ["Ja.", "Да."], "\n"))) == "Ja.\nДа.\n"


def test_a_document_starts_with_bos_or_else_eos_or_nothing() -> None:
    tokenizer = tiny_tokenizer()
    assert document_start(tokenizer) == tokenizer.bos_token_id == 0
    tokenizer.bos_token = None
    assert document_start(tokenizer) == tokenizer.eos_token_id == 1
    tokenizer.eos_token = None
    assert document_start(tokenizer) is None


@settings(deadline=None)
@given(st.integers(1, 12), st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_each_sequence_keeps_its_language_in_batches_of_any_size(size: int, counts: list[int]) -> None:
    calibration = tiny_calibration(len(counts), counts, length=3)
    batches = calibration.batches(size)
    assert [len(batch.tokens) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert 1 <= len(batches[-1].tokens) <= size
    tokens = torch.cat([batch.tokens for batch in batches])
    languages = torch.cat([batch.languages for batch in batches])
    assert len(tokens) == calibration.count == sum(counts)
    for index, part in enumerate(calibration.sequences):
        assert torch.equal(tokens[languages == index], part)


def test_languages_stay_where_they_can_be_looked_at_without_waiting() -> None:
    with pretend() as waits:
        batches = small_set().batches(2, DEVICE)
        assert waits.total == 1  # all tokens, in one go
        assert [batch.tokens.device.type for batch in batches] == [DEVICE.type] * 2
        assert [batch.languages.tolist() for batch in batches] == [[0, 0], [1]]
    assert waits.total == 1


def test_a_calibration_set_counts_its_tokens() -> None:
    calibration = small_set()
    assert calibration.tokens_per_language == {"deu_Latn": 4, "fra_Latn": 2}
    assert (calibration.length, calibration.count) == (2, 3)


def test_the_fingerprint_tells_languages_tokens_and_division() -> None:
    regrouped = CalibrationSet(
        ("deu_Latn", "fra_Latn"), (torch.tensor([[1, 2]]), torch.tensor([[3, 4], [5, 0]])), "by hand"
    )
    reshaped = CalibrationSet(
        ("deu_Latn", "fra_Latn"), (torch.tensor([[1, 2, 3, 4]]), torch.tensor([[5, 0]])), "by hand"
    )
    sets = [small_set(), small_set(tokens=9), small_set(("deu_Latn", "spa_Latn")), regrouped, reshaped]
    assert len({each.fingerprint() for each in sets}) == len(sets)


def test_the_fingerprint_is_the_same_in_every_process_and_integer_type() -> None:
    narrow = CalibrationSet(
        ("deu_Latn", "fra_Latn"), tuple(part.to(torch.int32) for part in small_set().sequences), "by hand"
    )
    assert small_set().fingerprint() == narrow.fingerprint() == "b9f654614b4681e7"


def test_text_that_spells_the_padding_token_is_refused_with_language_and_sentence() -> None:
    tokenizer, text = tiny_tokenizer(), {"eng_Latn": ["plain"], "swh_Latn": ["wazi", f"{'a' * 30} <pad> {'b' * 30}"]}
    packed = {code: torch.tensor([tokenizer.encode(" ".join(part))]) for code, part in text.items()}
    with pytest.raises(CorpusError) as caught:
        check_no_padding(tokenizer, packed, text)
    assert str(caught.value) == (
        "the calibration text of swh_Latn spells the padding token <pad> in "
        f"'…{'a' * 19} <pad> {'b' * 19}…'; remove it there"
    )


@pytest.mark.parametrize("role", ["unk_token", "eos_token", "bos_token"])
def test_a_padding_token_with_another_meaning_may_stand_among_the_others(role: str) -> None:
    tokenizer = tiny_tokenizer()
    setattr(tokenizer, role, "<pad>")
    check_no_padding(tokenizer, {"eng_Latn": torch.tensor([[5, tokenizer.pad_token_id]])}, {"eng_Latn": ["a <pad>"]})


def test_a_token_that_no_text_spells_is_not_blamed_on_the_text() -> None:
    tokenizer = tiny_tokenizer()
    check_no_padding(tokenizer, {"eng_Latn": torch.tensor([[5, tokenizer.pad_token_id]])}, {"eng_Latn": ["plain"]})


def test_an_ordinary_token_that_a_tokenizer_pads_with_may_stand_in_text() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = "!"
    check_no_padding(tokenizer, {"eng_Latn": torch.tensor([tokenizer.encode("No!")])}, {"eng_Latn": ["No!"]})


def test_a_tokenizer_without_a_padding_token_has_nothing_to_refuse() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    check_no_padding(tokenizer, {"eng_Latn": torch.tensor([[5, 2]])}, {"eng_Latn": ["a <pad>"]})


@pytest.mark.parametrize("fraction", [1.0, 0.5, 0.25, 0.125, 0.03])
def test_a_part_holds_the_fraction_of_tokens_of_every_language(fraction: float) -> None:
    whole = CalibrationSet(("a", "b"), (torch.arange(800).view(4, 200), torch.arange(1600).view(8, 200)), "x")
    part = whole.part(fraction)
    wanted, found = fraction * 12 * 200, sum(part.tokens_per_language.values())
    assert wanted * 0.6 <= found <= max(wanted * 1.1, 16 * part.count)
    for mine, theirs in zip(part.sequences, whole.sequences, strict=True):
        assert mine.shape[0] >= 1
        assert torch.equal(mine, theirs[: mine.shape[0], : mine.shape[1]])
