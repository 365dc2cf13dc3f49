"""What leaves for a tracker is plain data without secrets."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from mwanda.tracking.plain import plain


SECRET = "0123456789abcdef0123456789abcdef01234567"

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@given(json_values)
def test_plain_data_stays_as_it_is(value: Any) -> None:
    assert plain(value) == value


def test_containers_become_dict_and_list() -> None:
    value = OrderedDict(a=(1, 2), b={3}, c=OmegaConf.create({"d": [4.5, None]}))
    copy = plain(value)
    assert copy == {"a": [1, 2], "b": [3], "c": {"d": [4.5, None]}}
    assert type(copy) is type(copy["c"]) is dict
    assert type(copy["c"]["d"]) is list


def test_other_values_become_text() -> None:
    assert plain({1: Path("a/b")}) == {"1": "a/b"}


def test_the_copy_does_not_change_with_the_original() -> None:
    original = {"a": [1]}
    copy = plain(original)
    original["a"].append(2)
    assert copy == {"a": [1]}


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "COMET_API_KEY"])
def test_secrets_are_hidden_wherever_they_stand(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, SECRET)
    told = f"${{oc.env:{name}}}"
    assert plain({f"key {SECRET}": (f"{SECRET}, again: {SECRET}", {SECRET}, Path(SECRET))}) == {
        f"key {told}": [f"{told}, again: {told}", [told], told]
    }
