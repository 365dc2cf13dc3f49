"""Lets the forward passes of many batches wait for each other at a module.

Each batch's forward pass is the model's own, run as a coroutine (greenlet). It pauses where a chosen module is about
to be called, with the arguments that the model itself made, and goes on when told to. So no call of a block is ever
re-made by hand, and nothing has to be raised to leave a forward pass half-way.
"""

from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

from greenlet import getcurrent, greenlet
from torch import Tensor, nn

from mwanda.errors import CalibrationError
from mwanda.pruner.offloading import ActivationOffloading
from mwanda.pruner.thread_state import ThreadState, kept


T = TypeVar("T")


@dataclass(frozen=True)
class Arrival(Generic[T]):
    """A batch about to enter a module; `index` counts the batches."""

    index: int
    batch: T
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def states(self) -> list[Tensor]:
        """Return the hidden states among the arguments: sequences × tokens × features."""
        values = {id(value): value for value in (*self.args, *self.kwargs.values())}  # one may be there twice
        return [
            value
            for value in values.values()
            if isinstance(value, Tensor) and value.is_floating_point() and value.dim() == 3
        ]


class Lockstep(Generic[T]):
    """Runs `forward` for all batches at once, pausing each at every module of `stops`.

    Args:
        forward: one batch's way through the model.
        batches: what it is called with.
        stops: where to pause.
        offloading: where the hidden states of waiting batches are kept; None leaves them where they are.
    """

    def __init__(
        self,
        forward: Callable[[T], object],
        batches: Sequence[T],
        stops: Sequence[nn.Module],
        offloading: ActivationOffloading | None = None,
    ):
        self.results: list[Any] = [None] * len(batches)
        self._running = [(batch, greenlet(forward)) for batch in batches]
        self._states: dict[int, ThreadState] = {}
        self._ours = {running: index for index, (_, running) in enumerate(self._running)}
        self._stops = stops
        self._offloading = offloading
        self._hooks: list[Any] = []
        self._waiting: list[Arrival[T]] = []
        self._started = False

    def __enter__(self) -> "Lockstep[T]":
        self._hooks = [stop.register_forward_pre_hook(self._pause, with_kwargs=True) for stop in self._stops]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        with kept():
            for place, (_, running) in enumerate(self._running):
                if running:  # still waiting half-way: unwind it, so that no frame outlives the walk
                    self._states[place].restore()
                    running.throw()

    @property
    def index(self) -> int | None:
        """The batch whose forward pass is running, or None while all of them wait."""
        return self._ours.get(getcurrent())

    @property
    def batch(self) -> T | None:
        """The batch whose forward pass is running, or None while all of them wait."""
        return None if self.index is None else self._running[self.index][0]

    def advance(self) -> list[Arrival[T]]:
        """Let every batch go on to its next stop; return where they are, or nothing when all have finished.

        It is one list, whose entries are replaced as the batches move on, so that what one waits with is freed
        before the next one moves.

        Raises:
            CalibrationError: the batches are not at the same module.
        """
        still = 0
        with kept() as ours:
            for place, (batch, running) in enumerate(self._running):
                if self._started:
                    self.fetch(self._waiting[place])
                outcome = self._go_on(place, running, batch, ours)
                if isinstance(outcome, Arrival):
                    still += 1
                    self.offload(outcome)
                else:
                    self.results[place] = outcome
                self._waiting[place : place + 1] = [outcome]
        self._started = True
        if still not in (0, len(self._running)) or len({arrival.module for arrival in self._waiting if still}) > 1:
            raise CalibrationError("batches took different ways through the model; use pruner.order=oneshot")
        if not still:
            self._running, self._waiting = [], []
        return self._waiting

    def random_state(self, index: int) -> Tensor:
        """Return the state of the random numbers of a batch that waits."""
        return self._states[index].random

    def _go_on(self, place: int, running: greenlet, batch: T, ours: ThreadState) -> Any:
        """Let a batch go on to its next stop, or to its end; return what it comes to."""
        self._states.get(place, ours).restore()
        if place in self._states:
            outcome = running.switch()
        else:
            running.gr_context = copy_context()
            outcome = running.switch(batch)
        self._states[place] = ThreadState.now()
        return outcome

    def offload(self, arrival: Arrival[T]) -> None:
        """Put what a batch waits with where `offloading` says."""
        if self._offloading is not None:
            self._offloading.offload(arrival.index, arrival.states())

    def fetch(self, arrival: Arrival[T]) -> None:
        """Undo `offload`."""
        if self._offloading is not None:
            self._offloading.fetch(arrival.index)

    def _pause(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        index = self.index
        if index is None:  # a call from outside the batches' own forward passes
            return
        parent = getcurrent().parent
        assert parent is not None
        parent.switch(Arrival(index, self._running[index][0], module, args, kwargs))
