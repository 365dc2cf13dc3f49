"""Texts that are damaged in every way end in one line that names the file, or are read where that does no harm."""

from pathlib import Path

import pytest
from damage_text import CODES, TEXTS, sound_corpus
from tiny_models import tiny_tokenizer

from mwanda.calibration import Calibration
from mwanda.corpora import check_disjoint
from mwanda.corpora.local import Local
from mwanda.errors import InputError
from mwanda.evaluation.perplexity import Perplexity
from mwanda.languages import find


def read(folder: Path) -> None:
    """Do with the text of a folder what a run does before it loads a model."""
    corpus, tokenizer = Local(str(folder)), tiny_tokenizer()
    calibration, evaluation = (
        {language.code: list(corpus.sentences(language, split)) for language in find(CODES)}
        for split in ("calibration", "evaluation")
    )
    check_disjoint(calibration, evaluation)
    Calibration(sequences=4, length=32).build(tokenizer, calibration)
    Perplexity(window=64, stride=64).texts(tokenizer, evaluation)


def test_there_are_as_many_damages_as_were_tried_before() -> None:
    assert sum(damage.told is not None for damage in TEXTS.values()) >= 74


@pytest.mark.parametrize("name", TEXTS)
def test_a_damaged_text_is_one_clear_error(name: str, tmp_path: Path) -> None:
    folder, told = sound_corpus(tmp_path / "corpus"), TEXTS[name].told
    TEXTS[name].spoil(folder)
    if told is None:
        read(folder)
        return
    with pytest.raises(InputError) as caught:
        read(folder)
    message = str(caught.value)
    assert told in message
    assert "\n" not in message
    assert len(message) < 400
