"""Lets the forward passes of many batches wait for each other at a module.

Each batch's forward pass is the model's own, run as a coroutine (greenlet). It pauses where a chosen module is about
to be called, with the arguments that the model itself made, and goes on when told to. So no call of a block is ever
re-made by hand, and nothing has to be raised to leave a forward pass half-way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from greenlet import getcurrent, greenlet
from torch import nn

from mwanda.calibration import Batch
from mwanda.errors import CalibrationError


@dataclass(frozen=True)
class Arrival:
    """A batch about to enter a module."""

    batch: Batch
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class Lockstep:
    """Runs `forward` for all batches at once, pausing each at every module of `stops`."""

    def __init__(self, forward: Callable[[Batch], object], batches: Sequence[Batch], stops: Sequence[nn.Module]):
        self._travellers = [(batch, greenlet(forward)) for batch in batches]
        self._ours = {traveller: batch for batch, traveller in self._travellers}
        self._stops = stops
        self._hooks: list[Any] = []
        self._started = False

    def __enter__(self) -> "Lockstep":
        self._hooks = [stop.register_forward_pre_hook(self._pause, with_kwargs=True) for stop in self._stops]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        for _, traveller in self._travellers:
            if traveller:  # still waiting half-way: unwind it, so that no frame outlives the walk
                traveller.throw()

    def advance(self) -> list[Arrival]:
        """Let every batch go on to its next stop; return where they are, or nothing when all have finished.

        Raises:
            CalibrationError: the batches are not at the same module.
        """
        arrivals = [
            traveller.switch() if self._started else traveller.switch(batch) for batch, traveller in self._travellers
        ]
        self._started = True
        waiting = [arrival for arrival in arrivals if isinstance(arrival, Arrival)]
        if len({arrival.module for arrival in waiting}) > 1 or len(waiting) not in (0, len(arrivals)):
            raise CalibrationError("batches took different ways through the model; use pruner.order=oneshot")
        if not waiting:
            self._travellers = []
        return waiting

    def _pause(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        batch = self._ours.get(getcurrent())
        if batch is None:  # not one of the travelling batches: a call by whoever drives them
            return
        parent = getcurrent().parent
        assert parent is not None
        parent.switch(Arrival(batch, module, args, kwargs))
