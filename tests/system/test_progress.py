"""Progress: a bar in a terminal, silence elsewhere."""

import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from mwanda.system.progress import Rate, Silent, Terminal


def test_outside_a_terminal_nothing_is_written() -> None:
    stream = io.StringIO()
    progress = Terminal(Console(file=stream, force_terminal=False))
    assert list(progress.track([1, 2, 3], "count", unit="things")) == [1, 2, 3]
    assert stream.getvalue() == ""


def test_in_a_terminal_title_weighted_count_and_rate_are_shown() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120)
    items: Sequence[str] = ["ab", "cde"]
    assert list(Terminal(console).track(items, "evaluate", unit="tokens", weight=len)) == ["ab", "cde"]
    shown = stream.getvalue()
    assert "evaluate" in shown
    assert "5/5" in shown
    assert "tokens/s" in shown


def test_the_bar_disappears_also_when_the_loop_fails() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120)
    bars = Terminal(console).track([1, 2], "prune", unit="blocks")
    next(bars)
    with pytest.raises(RuntimeError, match="broken"):
        bars.throw(RuntimeError("broken"))
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert stream.getvalue().rindex(shown) > stream.getvalue().rindex(hidden)


@pytest.mark.parametrize(("speed", "text"), [(None, ""), (0.5, "0.50 blocks/s"), (1234.6, "1,235 blocks/s")])
def test_slow_rates_have_decimals_and_fast_ones_none(speed: float | None, text: str) -> None:
    assert Rate().render(_Task(speed)).plain == text  # type: ignore[arg-type]


def test_silence_yields_the_items() -> None:
    assert list(Silent().track([1, 2], "count", unit="things")) == [1, 2]


class _Task:
    """The part of a task that the rate needs."""

    def __init__(self, speed: float | None) -> None:
        self.speed, self.fields = speed, {"unit": "blocks"}
