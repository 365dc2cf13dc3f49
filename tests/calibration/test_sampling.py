"""How many sequences each language gives, and what is said when its text does not suffice."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_tokenizer
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from mwanda.calibration import Calibration, CalibrationSet
from mwanda.calibration.mixes import mixes
from mwanda.calibration.sampling import Sampling, first_bytes
from mwanda.errors import ConfigurationError, CorpusError
from mwanda.statistics import LanguageWeights


SAMPLINGS: tuple[Sampling, ...] = ("equal", "corpus", "temperature")
"""Those that need neither a training mix nor a list of languages."""
SENTENCES = {
    "eng_Latn": [f"The river rose by {number} hands." for number in range(40)],
    "ell_Grek": [f"Το ποτάμι ανέβηκε {number} πόντους." for number in range(30)],
    "jpn_Jpan": [f"川が{number}尺上がった。" for number in range(20)],
}
SIZES = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(1, 10**9), min_size=1, max_size=8)


def build(calibration: Calibration, sentences: Mapping[str, Sequence[str]] = SENTENCES) -> CalibrationSet:
    """Return what is built with the tiny tokenizer, of which each byte is a token."""
    return calibration.build(tiny_tokenizer(), sentences)


def error_of(calibration: Calibration, sentences: Mapping[str, Sequence[str]]) -> str:
    """Return the error of building, which is one line."""
    with pytest.raises(CorpusError) as caught:
        build(calibration, sentences)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def suggested(message: str) -> int:
    """Return the number of sequences that an error suggests."""
    found = re.search(r"calibration\.sequences=(\d+) would fit", message)
    assert found
    return int(found.group(1))


def decoded(calibration: CalibrationSet) -> list[str]:
    """Return each language's text without start tokens; half a letter at a cut shows as a replacement character."""
    tokenizer = tiny_tokenizer()
    return [str(tokenizer.decode(part[:, 1:].flatten().tolist())) for part in calibration.sequences]


@pytest.mark.parametrize(("asked", "each"), [(3, 1), (9, 3), (10, 3), (11, 3), (12, 4)])
def test_equal_gives_each_language_the_same_number_of_tokens(asked: int, each: int) -> None:
    built = build(Calibration(sequences=asked, length=16))
    assert built.tokens_per_language == dict.fromkeys(SENTENCES, each * 16)
    assert built.count == each * len(SENTENCES)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_fewer_sequences_than_languages_are_refused(sampling: Sampling) -> None:
    with pytest.raises(ConfigurationError, match=r"calibration\.sequences=2: must be at least .* 3"):
        build(Calibration(sequences=2, length=16, sampling=sampling))


@settings(deadline=None)
@given(SIZES, st.integers(0, 300), st.sampled_from(["corpus", "temperature"]), st.floats(0.2, 20))
def test_the_division_sums_exactly_and_leaves_out_no_language(
    sizes: dict[str, int], spare: int, sampling: Sampling, temperature: float
) -> None:
    total = len(sizes) + spare
    given_out = Calibration(sequences=total, sampling=sampling, temperature=temperature).divide(sizes)
    assert list(given_out) == list(sizes)
    assert sum(given_out.values()) == total
    assert min(given_out.values()) >= 1


@settings(deadline=None)
@given(SIZES, st.integers(0, 300))
def test_a_language_with_more_text_never_gives_less(sizes: dict[str, int], spare: int) -> None:
    given_out = Calibration(sequences=len(sizes) + spare, sampling="corpus").divide(sizes)
    ordered = sorted(sizes, key=lambda code: sizes[code])
    for smaller, larger in pairwise(ordered):
        assert sizes[smaller] == sizes[larger] or given_out[smaller] <= given_out[larger]


def test_divisions_worked_by_hand() -> None:
    """Of 11, one goes to each language; the other 9 are divided 1 : 8, or 1 : 2 under the third root."""
    sizes, asked = {"a": 100, "b": 800}, Calibration(sequences=11)
    assert asked.divide(sizes) == {"a": 5, "b": 5}
    assert replace(asked, sampling="corpus").divide(sizes) == {"a": 2, "b": 9}
    assert replace(asked, sampling="temperature", temperature=3.0).divide(sizes) == {"a": 4, "b": 7}


@settings(deadline=None)
@given(SIZES, st.integers(0, 300))
def test_temperature_one_leaves_the_proportions_as_they_are(sizes: dict[str, int], spare: int) -> None:
    asked = Calibration(sequences=len(sizes) + spare, sampling="temperature", temperature=1.0)
    assert asked.divide(sizes) == replace(asked, sampling="corpus").divide(sizes)


def test_the_division_goes_by_bytes_and_not_by_characters() -> None:
    sentences = {"eng_Latn": ["a" * 300], "ell_Grek": ["α" * 300]}
    built = build(Calibration(sequences=14, length=16, sampling="corpus"), sentences)
    assert [len(part) for part in built.sequences] == [5, 9]


def test_sequences_are_the_text_in_order_each_led_by_the_start_token() -> None:
    built = build(Calibration(sequences=9, length=16))
    tokenizer = tiny_tokenizer()
    for part, (code, sentences) in zip(built.sequences, SENTENCES.items(), strict=True):
        assert part.shape == (3, 16)
        assert part[:, 0].tolist() == [tokenizer.bos_token_id] * 3
        expected = tokenizer.encode("\n".join(sentences), add_special_tokens=False)
        assert part[:, 1:].flatten().tolist() == expected[: 3 * 15], code
    assert built.codes == tuple(SENTENCES)


def test_without_a_start_token_sequences_hold_text_only() -> None:
    built = build(Calibration(sequences=9, length=16, start_token=False))
    special = set(tiny_tokenizer().all_special_ids)
    assert not special & set(torch.cat(built.sequences).flatten().tolist())


def test_the_only_special_token_is_the_start_token() -> None:
    built = build(Calibration(sequences=9, length=16))
    special = set(tiny_tokenizer().all_special_ids)
    assert not special & set(torch.cat(built.sequences)[:, 1:].flatten().tolist())


def test_text_that_holds_the_padding_token_is_refused() -> None:
    with pytest.raises(CorpusError, match="the calibration text of eng_Latn spells the padding token <pad>"):
        build(Calibration(sequences=1, length=16), {"eng_Latn": ["A blank <pad> and more text to fill it."]})


def test_the_packing_is_recorded() -> None:
    assert build(Calibration(sequences=3, length=16)).packing == (
        "concatenate: sentences joined by a line break, cut into 16 tokens, each led by the document start token"
    )
    assert build(Calibration(sequences=3, length=16, start_token=False)).packing.endswith("without a start token")


def test_a_tokenizer_without_a_start_token_is_recorded_as_such() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = tokenizer.eos_token = None
    built = Calibration(sequences=3, length=16).build(tokenizer, SENTENCES)
    assert built.packing.endswith("without a start token")


def test_a_seed_shuffles_whole_sentences_and_always_alike() -> None:
    plain, first, again, other = (build(Calibration(sequences=30, length=32, seed=seed)) for seed in (None, 1, 1, 2))
    assert first.fingerprint() == again.fingerprint()
    assert len({plain.fingerprint(), first.fingerprint(), other.fingerprint()}) == 3
    lines = decoded(first)[0].split("\n")[:-1]
    assert len(lines) == len(set(lines)) > 5
    assert set(lines) <= set(SENTENCES["eng_Latn"])


def test_languages_with_as_many_sentences_are_shuffled_alike() -> None:
    """Aligned text stays aligned."""
    sentences = {"eng_Latn": [f"n{number}" for number in range(50)], "deu_Latn": [f"n{number}" for number in range(50)]}
    first, second = build(Calibration(sequences=8, length=16, seed=3), sentences).sequences
    assert torch.equal(first, second)


def test_too_little_text_names_the_languages_the_amount_and_a_remedy() -> None:
    sentences = {**SENTENCES, "tha_Thai": ["น้ำขึ้น"], "kat_Geor": ["მდინარე ადიდდა"]}
    message = error_of(Calibration(sequences=100, length=16), sentences)
    assert "2 language(s) have too little calibration text (kat_Geor, tha_Thai)" in message
    assert "tha_Thai gives 1 sequence(s) of 16 tokens, 20 are asked for" in message
    assert suggested(message) == 5


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=4), st.integers(1, 40), st.integers(3, 12))
def test_the_remedy_works_and_no_larger_one_does_under_equal_sampling(
    sizes: list[int], spare: int, length: int
) -> None:
    sentences = {f"l{index}": ["a" * (size + length)] for index, size in enumerate(sizes)}
    shortest = (min(sizes) + length + 1) // (length - 1)
    asked = Calibration(sequences=len(sizes) * (shortest + spare), length=length)
    fits = suggested(error_of(asked, sentences))
    assert build(replace(asked, sequences=fits), sentences).count == fits
    assert "too little" in error_of(replace(asked, sequences=fits + len(sizes)), sentences)


@pytest.mark.parametrize("sampling", ["corpus", "temperature"])
def test_the_remedy_works_when_a_language_with_more_bytes_has_fewer_tokens(sampling: Sampling) -> None:
    """The tokenizer gives a special token, one for many bytes, to one of the languages."""
    sentences = {"l0": ["</s>" * 100], "l1": ["a" * 300]}
    asked = Calibration(sequences=200, length=6, sampling=sampling)
    fits = suggested(error_of(asked, sentences))
    assert build(replace(asked, sequences=fits), sentences).count == fits


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("text", [[], ["a"]])
def test_a_language_without_a_full_sequence_is_told_to_shorten_them(sampling: Sampling, text: list[str]) -> None:
    asked = Calibration(sequences=2, length=16, sampling=sampling)
    message = error_of(asked, {"deu_Latn": text})
    assert "(deu_Latn): deu_Latn gives 0 sequence(s) of 16 tokens, 2 are asked for" in message
    assert "use calibration.length below 16 or another corpus" in message


def test_shorter_sequences_are_a_remedy_when_not_even_one_fits() -> None:
    sentences = {"deu_Latn": ["ein kurzer Satz"]}
    asked = Calibration(sequences=1, length=32)
    assert "calibration.length below 32" in error_of(asked, sentences)
    assert build(replace(asked, length=17), sentences).count == 1


@pytest.mark.parametrize("unit", ["tokens", "bytes"])
def test_the_size_is_given_exactly_once(unit: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"calibration\.{unit}=900: .*add calibration\.sequences=null"):
        Calibration(**{unit: 900})
    with pytest.raises(ConfigurationError, match="must be given"):
        Calibration(sequences=None)


@settings(deadline=None)
@given(SIZES, st.integers(0, 3000), st.integers(2, 99), st.sampled_from(SAMPLINGS))
def test_a_number_of_tokens_is_divided_as_its_whole_sequences(
    sizes: dict[str, int], spare: int, length: int, sampling: Sampling
) -> None:
    tokens = len(sizes) * length + spare
    by_tokens = Calibration(sequences=None, tokens=tokens, length=length, sampling=sampling)
    by_sequences = Calibration(sequences=tokens // length, length=length, sampling=sampling)
    assert by_tokens.divide(sizes) == by_sequences.divide(sizes)
    assert by_tokens.most_tokens == by_sequences.most_tokens <= tokens


def test_too_few_tokens_for_the_languages_are_refused_with_the_least_that_do() -> None:
    with pytest.raises(ConfigurationError, match=r"calibration\.tokens=47: .* 3 times 16 tokens = 48"):
        build(Calibration(sequences=None, tokens=47, length=16))
    built = build(Calibration(sequences=None, tokens=48, length=16))
    assert built.tokens_per_language == dict.fromkeys(SENTENCES, 16)


def test_too_little_text_for_the_tokens_is_answered_in_tokens() -> None:
    asked = Calibration(sequences=None, tokens=100_000, length=16)
    fits = re.search(r"calibration\.tokens=(\d+) would fit", error_of(asked, SENTENCES))
    assert fits
    assert sum(build(replace(asked, tokens=int(fits.group(1)))).tokens_per_language.values()) == int(fits.group(1))


@settings(deadline=None)
@given(SIZES, st.integers(0, 10**6), st.sampled_from(SAMPLINGS))
def test_bytes_are_divided_like_sequences(sizes: dict[str, int], spare: int, sampling: Sampling) -> None:
    total = len(sizes) + spare
    given_out = Calibration(sequences=None, bytes=total, sampling=sampling).divide(sizes)
    assert given_out == Calibration(sequences=total, sampling=sampling).divide(sizes)
    assert min(given_out.values()) >= 1
    assert total - len(sizes) < sum(given_out.values()) <= total


def test_equal_bytes_give_each_language_the_same_text_up_to_a_sequence() -> None:
    """A byte is a token of the tiny tokenizer; each sentence costs one token more, for its line break."""
    built = build(Calibration(sequences=None, bytes=900, length=16, start_token=False))
    tokenizer = tiny_tokenizer()
    for part in built.sequences:
        text = str(tokenizer.decode(part.flatten().tolist()))
        used = len(text.replace("\n", "").replace("\ufffd", "").encode())
        assert 300 - 16 - 3 <= used <= 300


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 400))
def test_text_is_cut_at_a_byte_but_never_within_a_character(limit: int) -> None:
    sentences = SENTENCES["jpn_Jpan"]
    taken = list(first_bytes(sentences, limit))
    whole = "".join(sentences).encode()
    assert whole.decode().startswith("".join(taken))
    assert min(limit, len(whole)) - 3 < len("".join(taken).encode()) <= limit


def test_too_little_text_for_the_bytes_is_answered_by_what_would_fit() -> None:
    asked = Calibration(sequences=None, bytes=10**6, length=16)
    message = error_of(asked, SENTENCES)
    fits = re.search(r"calibration\.bytes=(\d+) would fit", message)
    assert fits
    shortest = min(sum(len(one.encode()) for one in part) for part in SENTENCES.values())
    assert int(fits.group(1)) // 3 == shortest
    assert build(replace(asked, bytes=int(fits.group(1)))).count >= 3


def test_bytes_that_fill_no_sequence_are_refused() -> None:
    message = error_of(Calibration(sequences=None, bytes=30, length=16), SENTENCES)
    assert "give no full sequence of 16 tokens" in message
    assert "raise calibration.bytes" in message


def test_proportional_goes_by_the_training_mix_of_the_model() -> None:
    asked = Calibration(sequences=600, sampling="proportional").for_model("bigscience/bloom-560m")
    assert asked.mix == "bloom"
    codes = asked.codes(["eng_Latn", "swh_Latn", "fin_Latn", "fra_Latn"])
    assert codes == ["eng_Latn", "swh_Latn", "fra_Latn"]  # BLOOM was not trained on Finnish
    given_out = asked.divide(dict.fromkeys(codes, 1))
    # One each, then 597 by 484.95 : 0.2365 : 208.24 GB, which is 417.51 : 0.20 : 179.28.
    assert given_out == {"eng_Latn": 419, "swh_Latn": 1, "fra_Latn": 180}


@settings(deadline=None)
@given(
    st.sampled_from(sorted(mixes())),
    st.integers(0, 500),
    st.sampled_from(["proportional", "temperature"]),
    st.floats(0.5, 9),
    st.data(),
)
def test_a_division_by_mix_sums_exactly_and_leaves_out_no_language_of_the_mix(
    name: str, spare: int, sampling: Sampling, temperature: float, data: st.DataObject
) -> None:
    codes = data.draw(st.lists(st.sampled_from(sorted(mixes()[name].shares)), min_size=1, max_size=30, unique=True))
    total = len(codes) + spare
    asked = Calibration(sequences=total, sampling=sampling, temperature=temperature, proportions="mix", mix=name)
    given_out = asked.for_model("anything").divide(dict.fromkeys(codes, 1))
    assert sum(given_out.values()) == total
    assert min(given_out.values()) >= 1
    shares = mixes()[name].shares
    for one, other in pairwise(sorted(codes, key=lambda code: shares[code])):
        assert shares[one] == shares[other] or given_out[one] <= given_out[other]


def test_temperature_evens_out_the_mix() -> None:
    codes = dict.fromkeys(["eng_Latn", "swh_Latn"], 1)
    plain, warm, hot = (
        Calibration(sequences=1000, sampling="temperature", proportions="mix", mix="bloom", temperature=temperature)
        for temperature in (1.0, 3.0, 1e6)
    )
    assert plain.divide(codes) == Calibration(sequences=1000, sampling="proportional", mix="bloom").divide(codes)
    assert plain.divide(codes)["swh_Latn"] < warm.divide(codes)["swh_Latn"] < hot.divide(codes)["swh_Latn"] == 500


def test_a_model_without_a_published_mix_is_told_who_has_one_and_what_else_to_do() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Calibration(sampling="proportional").for_model("meta-llama/Llama-3.2-1B")
    message = str(caught.value)
    assert message.startswith("calibration.sampling=proportional: no training mix of meta-llama/Llama-3.2-1B is known")
    assert all(word in message for word in ("calibration.sampling=corpus", "bloom", "mt5", "xglm", "xlmr"))
    assert "\n" not in message


def test_a_mix_without_any_of_the_languages_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"calibration\.mix=xglm: has none of the calibration languages"):
        Calibration(sampling="proportional", mix="xglm").codes(["ace_Arab"])
    with pytest.raises(ConfigurationError, match=r"calibration\.mix=blom: .*choices: bloom"):
        Calibration(sampling="proportional", mix="blom").for_model("x")


@pytest.mark.parametrize(
    ("calibration", "codes"),
    [
        (Calibration(), ["deu_Latn", "fra_Latn"]),
        (Calibration(sampling="english"), ["eng_Latn"]),
        (Calibration(sampling="target", target=["swh_Latn"]), ["swh_Latn"]),
        (Calibration(languages=["tam_Taml", "deu_Latn"]), ["tam_Taml", "deu_Latn"]),
    ],
)
def test_which_languages_give_text(calibration: Calibration, codes: list[str]) -> None:
    assert calibration.for_model("x").codes(["deu_Latn", "fra_Latn"]) == codes
    assert set(calibration.divide(dict.fromkeys(codes, 1)).values()) == {120 // len(codes)}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"sampling": "target"}, "calibration.sampling=target: needs calibration.target"),
        ({"target": ["swh_Latn"]}, "calibration.target=.*goes with calibration.sampling=target"),
        ({"sampling": "english", "languages": ["swh_Latn"]}, "calibration.languages=.*english says which"),
    ],
)
def test_two_keys_cannot_say_which_languages_give_text(arguments: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigurationError, match=line):
        Calibration(**arguments)


def test_text_with_unknown_characters_is_taken_where_padding_and_unknown_are_one_token() -> None:
    vocabulary = {"<s>": 0, "</s>": 1, "<unk>": 2, **{letter: at for at, letter in enumerate("abc ", 3)}}
    inner = Tokenizer(BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
    )
    built = Calibration(sequences=1, length=16).build(tokenizer, {"eng_Latn": ["abc äbc xyz", "cba"] * 9})
    assert bool((built.sequences[0] == tokenizer.unk_token_id).any())


def test_weights_are_those_of_the_languages_in_their_order() -> None:
    codes = ["eng_Latn", "swh_Latn", "tam_Taml"]
    assert Calibration().weighting(codes) == LanguageWeights()
    assert Calibration(weights="balanced").weighting(codes) == LanguageWeights(balanced=True)
    assert Calibration(weights={"tam_Taml": 3, "eng_Latn": 0}).weighting(codes) == LanguageWeights((0, 1, 3))
    assert Calibration(weights={"swh_Latn": 1.0}).weighting(codes).uniform


@pytest.mark.parametrize(
    ("weights", "line"),
    [
        ({"fra_Latn": 2}, r"calibration\.weights=fra_Latn: gives no calibration text; choices: .*swh_Latn"),
        ({"eng_Latn": 0, "swh_Latn": 0}, r"calibration\.weights=.*: some language must weigh more than zero"),
    ],
)
def test_weights_of_others_or_of_nobody_are_refused(weights: dict[str, float], line: str) -> None:
    with pytest.raises(ConfigurationError, match=line):
        Calibration(weights=weights).weighting(["eng_Latn", "swh_Latn"])


def test_a_set_has_its_weights_and_its_parts_too() -> None:
    sentences = {"eng_Latn": ["a" * 60], "swh_Latn": ["b" * 60]}
    found = Calibration(sequences=4, length=16, weights={"swh_Latn": 2}).build(tiny_tokenizer(), sentences)
    assert found.weights == found.part(0.5).weights == LanguageWeights((1, 2))
    assert found.fingerprint() == replace(found, weights=LanguageWeights()).fingerprint()
