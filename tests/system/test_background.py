"""What is begun in the background is done, in turn, and its errors are not lost."""

from threading import Event

import pytest

from mwanda.system.background import Background


def test_one_thing_is_done_after_the_other_while_the_rest_goes_on() -> None:
    go, done = Event(), []
    with Background() as background:
        background.begin(lambda: done.append(go.wait(10)))
        assert not done
        go.set()
        background.begin(lambda: done.append("second"))
        assert done[0] is True
    assert done == [True, "second"]


def test_an_error_is_raised_where_the_next_thing_is_begun_and_only_there() -> None:
    done: list[str] = []
    with Background() as background:
        background.begin(lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            background.begin(lambda: done.append("never"))
        background.begin(lambda: done.append("after"))
    assert done == ["after"]


def test_an_error_is_raised_at_the_end() -> None:
    with pytest.raises(ZeroDivisionError), Background() as background:
        background.begin(lambda: 1 / 0)


def test_an_error_in_the_background_does_not_replace_the_one_that_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """A signal that ends a run must come through, also where the disk is full."""
    with pytest.raises(KeyError), Background() as background:
        background.begin(lambda: 1 / 0)
        raise KeyError
    assert "failed as well: division by zero" in caplog.text


def test_what_was_begun_is_done_when_something_else_goes_wrong() -> None:
    done: list[str] = []
    with pytest.raises(KeyError), Background() as background:
        background.begin(lambda: done.append("written"))
        raise KeyError
    assert done == ["written"]
