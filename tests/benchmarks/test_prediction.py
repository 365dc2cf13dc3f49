"""The comparison of predicted damages with measured ones."""

import language_damage as damage
import numpy as np
import prediction
import pytest


CODES = ("amh_Ethi", "deu_Latn", "eng_Latn", "fra_Latn")
PREDICTED = (0.4, 0.3, 0.1, 0.2)


def run(damages: tuple[float, ...], sparsity: float = 0.5, seed: int = 0) -> damage.Run:
    tokens = np.full((4, 3), 10.0)
    added = np.array(damages)[:, None] * tokens
    return damage.Run("wanda/threshold/uniform", "0.5", sparsity, CODES, seed, np.ones(4, dtype=bool), added, tokens, 1)


def plan(codes: tuple[str, ...] = CODES) -> dict[str, object]:
    known = dict(zip(CODES, PREDICTED, strict=True))
    cells = {c: [{"log_ratio": known[c], "low": known[c] - 0.05, "high": known[c] + 0.05}] for c in codes}
    return {"sparsities": [0.5], "languages": cells}


def cells(lines: list[str]) -> list[str]:
    return [cell.strip() for cell in lines[2].strip("| ").split("|")]


def test_a_right_prediction_is_right_in_every_column() -> None:
    found = cells(prediction.by_sparsity(plan(), [run(PREDICTED)]))
    assert found[:6] == ["wanda/threshold/uniform", "0.5", "1", "4", "0.250", "0.250"]
    assert found[6].startswith("1.00")
    assert found[7:] == ["1.00", "100 %"]


def test_the_opposite_order_is_told_by_the_correlation() -> None:
    found = cells(prediction.by_sparsity(plan(), [run((0.1, 0.2, 0.4, 0.3))]))
    assert found[6].startswith("-1.00")
    assert found[8] == "0 %"


def test_seeds_are_averaged_and_languages_without_a_prediction_left_out() -> None:
    runs = [run((0.3, 0.3, 9.0, 0.1)), run((0.5, 0.3, 9.0, 0.3), seed=1)]
    found = cells(prediction.by_sparsity(plan(("amh_Ethi", "deu_Latn", "fra_Latn")), runs))
    assert found[2:6] == ["2", "3", "0.300", "0.300"]
    assert found[8] == "100 %"


def test_sparsities_that_were_not_planned_are_left_out() -> None:
    assert len(prediction.by_sparsity(plan(), [run(PREDICTED, sparsity=0.6)])) == 2


def test_the_interval_is_of_sentences_and_of_languages() -> None:
    generator = np.random.default_rng(1)
    predicted, tokens = np.linspace(0.1, 1, 40), np.full((40, 6), 10.0)
    noisy = (predicted[:, None] + generator.normal(0, 0.3, (40, 6))) * tokens
    low, high = prediction.interval(predicted, noisy, tokens, draws=300)
    exact = prediction.interval(predicted, predicted[:, None] * tokens, tokens, draws=300)
    assert low < high < 1
    assert exact == pytest.approx((1, 1))
