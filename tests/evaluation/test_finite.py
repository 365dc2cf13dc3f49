"""What is no number is refused, naming the model and the languages; a pruned model that overflows is a result."""

import logging
import math

import pytest

from mwanda.errors import EvaluationError
from mwanda.evaluation.finite import check_likelihoods, check_logits, check_losses, overflows
from mwanda.evaluation.sentence_losses import SentenceLosses


def losses(*nats: float, tokens: int = 1) -> SentenceLosses:
    ones = (1,) * len(nats)
    return SentenceLosses((tokens,) * len(nats), ones, ones, nats)


GOOD = losses(1.0, 2.0)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (GOOD, False),
        (losses(709.0), False),
        (losses(710.0), True),
        (losses(710.0, 10.0), False),
        (losses(1e5, tokens=1000), False),
        (losses(1.0, math.inf), True),
        (losses(0.0, tokens=0), False),
    ],
)
def test_a_perplexity_overflows_where_its_exponential_is_no_number(measured: SentenceLosses, expected: bool) -> None:
    assert overflows(measured) is expected


@pytest.mark.parametrize("which", ["dense", "pruned"])
def test_what_is_not_a_number_is_refused_and_model_and_language_are_named(which: str) -> None:
    measured = {"eng_Latn": GOOD, "swh_Latn": losses(1.0, math.nan), "tam_Taml": losses(math.nan)}
    with pytest.raises(EvaluationError) as caught:
        check_losses(which, measured)  # type: ignore[arg-type]
    assert str(caught.value).startswith(
        f"the {which} model gives no number (NaN) as the loss of 1 of 2 sentences in swh_Latn and 1 more (tam_Taml); "
    )
    assert "model.dtype=float32" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("nats", [math.inf, 710.0])
def test_what_overflows_is_refused_of_the_dense_model_and_a_warning_of_the_pruned_one(
    nats: float, caplog: pytest.LogCaptureFixture
) -> None:
    measured = {"eng_Latn": GOOD, "swh_Latn": losses(nats)}
    with pytest.raises(EvaluationError, match="the dense model has an infinite perplexity in swh_Latn; "):
        check_losses("dense", measured)
    check_losses("pruned", measured)
    assert warnings(caplog) == ["the pruned model has an infinite perplexity in swh_Latn, which counts as hurt"]


def test_of_many_languages_a_few_are_named() -> None:
    with pytest.raises(EvaluationError, match=r"in l0 and 7 more \(l1, l2, l3, l4, …\)"):
        check_losses("pruned", {f"l{number}": losses(math.nan) for number in range(8)})


def test_numbers_pass(caplog: pytest.LogCaptureFixture) -> None:
    check_losses("dense", {"eng_Latn": GOOD})
    check_likelihoods("dense", "task", [-1.0, -2.0])
    check_logits("dense", are_numbers=True)
    assert warnings(caplog) == []


def test_answers_are_looked_at_likewise(caplog: pytest.LogCaptureFixture) -> None:
    for which in ("dense", "pruned"):
        with pytest.raises(
            EvaluationError, match=rf"the {which} model gives no number .* 1 of 2 answers in task cloze"
        ):
            check_likelihoods(which, "cloze", [math.nan, -math.inf])  # type: ignore[arg-type]
    with pytest.raises(EvaluationError, match=r"the dense model gives minus infinity .* 1 of 2 answers in task cloze"):
        check_likelihoods("dense", "cloze", [-1.0, -math.inf])
    check_likelihoods("pruned", "cloze", [-1.0, -math.inf])
    assert warnings(caplog) == ["the pruned model finds 1 of 2 answers in task cloze impossible"]


def test_logits_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(EvaluationError, match=r"the pruned model gives no numbers \(NaN\) as logits; "):
        check_logits("pruned", are_numbers=False)
