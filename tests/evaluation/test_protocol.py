"""Windows that score each token once, and the hash of the protocol."""

from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mwanda.evaluation.protocol import Protocol, Window, windows


START = 7
OTHER_VALUES = {
    "window": 256,
    "stride": 128,
    "start_token": False,
    "join": " ",
    "sentences": 10,
    "loss": "float64",
    "split": "calibration",
    "name": "document/3",
}


def document(length: int) -> list[int]:
    """Return tokens of which each tells its place."""
    return list(range(100, 100 + length))


@st.composite
def settings_of_windows(draw: st.DrawFn) -> tuple[list[int], int, int]:
    """Draw a document, a window and a stride that fits it."""
    window = draw(st.integers(1, 20))
    return document(draw(st.integers(0, 70))), window, draw(st.integers(1, window))


@settings(deadline=None)
@given(settings_of_windows(), st.sampled_from([None, START]))
def test_each_token_is_scored_once_and_in_order(drawn: tuple[list[int], int, int], start: int | None) -> None:
    tokens, window, stride = drawn
    made = windows(tokens, window, stride, start)
    scored = [token for each in made for token in each.tokens[-each.scored :]]
    places = [place for each in made for place in range(each.first, each.first + each.scored)]
    unpredictable = 1 if start is None else 0
    assert scored == tokens[unpredictable:]
    assert places == list(range(len(tokens)))[unpredictable:]


@settings(deadline=None)
@given(settings_of_windows(), st.sampled_from([None, START]))
def test_a_window_is_a_stretch_of_the_document_that_the_model_can_hold(
    drawn: tuple[list[int], int, int], start: int | None
) -> None:
    tokens, window, stride = drawn
    for each in windows(tokens, window, stride, start):
        body = list(each.tokens) if start is None else list(each.tokens[1:])
        begin = tokens.index(body[0])
        assert body == tokens[begin : begin + len(body)]
        assert start is None or each.tokens[0] == start
        assert 0 < each.scored <= min(stride, len(each.tokens) - 1), "something stands before each scored token"
        assert len(each.tokens) - 1 <= window, "no token is predicted from more than the window"


@settings(deadline=None)
@given(settings_of_windows())
def test_a_window_has_as_much_context_as_fits(drawn: tuple[list[int], int, int]) -> None:
    tokens, window, stride = drawn
    for each in windows(tokens, window, stride, START):
        assert len(each.tokens) - 1 == min(window, each.first + each.scored)


def test_a_start_token_at_the_first_leads_the_windows_that_reach_back_to_the_start() -> None:
    assert windows(document(5), 2, 2, START, every=False) == [
        Window((7, 100, 101), 2, 0),
        Window((101, 102, 103), 2, 2),
        Window((102, 103, 104), 1, 4),
    ]
    assert windows(document(4), 3, 1, START, every=False) == [
        Window((7, 100), 1, 0),
        Window((7, 100, 101), 1, 1),
        Window((7, 100, 101, 102), 1, 2),
        Window((100, 101, 102, 103), 1, 3),
    ]


@settings(deadline=None)
@given(settings_of_windows(), st.sampled_from([None, START]))
def test_without_a_start_token_in_every_window_each_has_as_much_context_as_fits(
    drawn: tuple[list[int], int, int], start: int | None
) -> None:
    tokens, window, stride = drawn
    for each in windows(tokens, window, stride, start, every=False):
        seen = each.first + each.scored + (start is not None)  # with everything before it
        assert len(each.tokens) - 1 == min(window, seen - 1)


def test_windows_worked_by_hand() -> None:
    assert windows(document(5), 4, 2, START) == [
        Window((7, 100, 101), 2, 0),
        Window((7, 100, 101, 102, 103), 2, 2),
        Window((7, 101, 102, 103, 104), 1, 4),
    ]


def test_without_a_start_token_only_the_very_first_token_is_not_scored() -> None:
    assert windows(document(5), 2, 2, None) == [
        Window((100, 101), 1, 1),
        Window((101, 102, 103), 2, 2),
        Window((102, 103, 104), 1, 4),
    ]
    assert windows(document(1), 2, 2, None) == []


@pytest.mark.parametrize("field", [each.name for each in fields(Protocol)])
def test_the_hash_changes_with_every_field(field: str) -> None:
    changed = replace(Protocol(), **{field: OTHER_VALUES[field]})  # type: ignore[arg-type]
    assert changed.hash != Protocol().hash


def test_no_two_changes_have_one_hash() -> None:
    changed = [replace(Protocol(), **{field: value}) for field, value in OTHER_VALUES.items()]  # type: ignore[arg-type]
    assert len({each.hash for each in changed}) == len(OTHER_VALUES)


def test_the_hash_is_the_same_in_every_process_and_version() -> None:
    assert Protocol().hash == "246edf677d4d"
    assert Protocol(window=64, stride=32, sentences=5).hash == Protocol(64, 32, True, "\n", 5).hash
