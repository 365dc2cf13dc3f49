"""Training mixes: their figures, their sources, and which model they belong to."""

import math
from importlib.resources import files
from typing import Any

import pytest
import yaml

from mwanda.calibration.mixes import mix_of, mixes
from mwanda.languages import find, known


NAMES = sorted(mixes())


def read(name: str) -> dict[str, Any]:
    """Return a file as it is written."""
    content = yaml.safe_load((files("mwanda.calibration.mixes") / f"{name}.yaml").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def test_the_mixes_that_are_published() -> None:
    assert NAMES == ["bloom", "mt5", "xglm", "xlmr"]


def test_every_file_opens_with_what_it_is_and_a_command_and_names_its_source() -> None:
    failures = []
    for name in NAMES:
        first, second, *_ = (files("mwanda.calibration.mixes") / f"{name}.yaml").read_text("utf-8").splitlines()
        content = read(name)
        keys = list(content) == ["source", "paths", "unit", "exponent", "shares"]
        commented = first.startswith("# ") and second.startswith("# python run.py ")
        if not (keys and commented and "20" in content["source"]):
            failures.append(name)
    assert failures == []


def test_every_language_of_a_mix_exists_and_shares_sum_to_one() -> None:
    failures = []
    for name, mix in mixes().items():
        known_and_sorted = [language.code for language in find(list(mix.shares))] == sorted(mix.shares)
        summed = all(share > 0 for share in mix.shares.values()) and math.isclose(sum(mix.shares.values()), 1.0)
        if not (known_and_sorted and list(mix.shares) == sorted(mix.shares) and summed):
            failures.append(name)
    assert failures == []


def test_published_sums_are_met() -> None:
    """Percentages sum to 100 and shares to 1 but for rounding, so that no figure was left out or mistyped."""
    assert abs(sum(read("mt5")["shares"].values()) - 100) < 0.05
    assert abs(sum(read("xglm")["shares"].values()) - 1) < 0.01
    assert len(read("mt5")["shares"]) == sum(language.c4 is not None for language in known().values())
    assert (len(read("xglm")["shares"]), len(read("bloom")["shares"])) == (30, 46)


def test_an_exponent_evens_out_sizes() -> None:
    shares = mixes()["xlmr"].shares
    assert math.isclose(shares["eng_Latn"] / shares["swh_Latn"], (300.8 / 1.6) ** 0.3)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("bigscience/bloom-560m", "bloom"),
        ("bigscience/bloomz-7b1", "bloom"),
        ("facebook/xglm-564M", "xglm"),
        ("google/mt5-small", "mt5"),
        ("FacebookAI/xlm-roberta-base", "xlmr"),
    ],
)
def test_a_model_finds_the_mix_that_it_was_trained_on(path: str, name: str) -> None:
    assert mix_of(None, path, "proportional").name == name
    assert mix_of("mt5", path, "proportional").name == "mt5"
