"""Progress of long steps: a bar with a rate in a terminal, silence in a log file."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text


T = TypeVar("T")


class Progress(Protocol):
    """Shows how far a loop has come."""

    def track(self, items: Sequence[T], title: str, unit: str, weight: Callable[[T], int] = lambda _: 1) -> Iterable[T]:
        """Yield `items`; each counts `weight(item)` units."""
        ...


class Silent:
    """Shows nothing."""

    def track(self, items: Sequence[T], title: str, unit: str, weight: Callable[[T], int] = lambda _: 1) -> Iterable[T]:
        """Yield `items`."""
        return items


class Rate(ProgressColumn):
    """How many units pass a second, with decimals where they are few."""

    def render(self, task: Task) -> Text:
        """Return the rate of a task; nothing before it is known."""
        unit = task.fields.get("unit", "")
        return Text(
            f"{task.speed:,.0f} {unit}/s"
            if task.speed and task.speed >= 10
            else f"{task.speed:.2f} {unit}/s"
            if task.speed
            else "",
            style="cyan",
        )


class Terminal:
    """A bar with count, rate and time left on standard error, when that is a terminal."""

    def __init__(self, console: Console | None = None):
        self._console = console or Console(stderr=True)

    def track(self, items: Sequence[T], title: str, unit: str, weight: Callable[[T], int] = lambda _: 1) -> Iterator[T]:
        """Yield `items` under a bar that disappears when they are done."""
        if not self._console.is_terminal:
            yield from items
            return
        with _bars(self._console) as bars:
            task = bars.add_task(title, total=sum(weight(item) for item in items), unit=unit)
            for item in items:
                yield item
                bars.advance(task, weight(item))


def _bars(console: Console) -> Bars:
    return Bars(
        TextColumn("{task.description:<20}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        Rate(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
