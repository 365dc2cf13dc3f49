"""What is asked of an accelerator, as far as it can be seen without one."""

import pytest
import torch
from torch.utils import deterministic

from mwanda.pruner.visitors import Seconds
from mwanda.system import device


CUDA = torch.device("cuda")


def test_operations_are_repeatable_while_they_are_asked_to_be() -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    filled = deterministic.fill_uninitialized_memory
    with device.repeatable(torch.device("cuda")):
        assert not deterministic.fill_uninitialized_memory
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert deterministic.fill_uninitialized_memory == filled
    assert not torch.are_deterministic_algorithms_enabled()
    with device.repeatable(torch.device("cpu")):
        assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("known", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_bfloat16_is_chosen_where_the_card_itself_computes_in_it(
    known: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_supported(including_emulation: bool = True) -> bool:
        return known or including_emulation

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert device.default_dtype(CUDA) == expected


def test_peak_memory_is_that_of_all_gpus_of_a_model_that_is_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda number: 10**number)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", forgotten.append)
    assert device.peak_device_bytes(CUDA) == 111
    device.reset_peak(CUDA)
    assert forgotten == [0, 1, 2]
    assert device.peak_device_bytes(torch.device("cpu")) == 0


class Event:
    """An event of a GPU that does everything a second after it was told, as if it were far behind."""

    told, waited = 0, 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.at = 0

    def record(self, stream: object) -> None:
        """Count seconds."""
        Event.told += 1
        self.at = Event.told

    def synchronize(self) -> None:
        """Count how often it is waited for."""
        Event.waited += 1

    def elapsed_time(self, later: "Event") -> float:
        """Return milliseconds."""
        return (later.at - self.at) * 1000.0


def test_stages_are_timed_by_the_device_which_is_waited_for_when_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The clock of the computer showed how long it takes to tell a GPU what to do."""
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    seconds = Seconds()
    for _ in range(3):
        with seconds.on("prune", CUDA):
            pass
    assert Event.waited == 0
    assert seconds.by_stage["prune"] == seconds.by_stage["prune"] == 3.0


def test_what_is_sent_does_not_share_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is pinned by copying as it lies, which an expanded tensor does not allow; only a GPU says so."""
    pinned: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: (pinned.append(tensor), tensor)[1])
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *_, **__: tensor)
    rows = torch.arange(3)[:, None].expand(3, 4)
    assert device.sent(rows, torch.device("cuda")).equal(rows)
    assert pinned[0].is_contiguous()


@pytest.mark.parametrize("size", [3, 5])
def test_what_is_fetched_from_a_gpu_goes_to_pinned_memory_unless_it_is_much(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class There(torch.Tensor):
        device = CUDA  # type: ignore[assignment]

    asked, empty, copy = [], torch.empty, torch.Tensor.copy_

    def copied(tensor: torch.Tensor, source: torch.Tensor) -> torch.Tensor:  # nothing goes on before it is done
        return copy(tensor, source)

    def noted(*shape: object, pin_memory: bool = False, **named: object) -> torch.Tensor:
        asked.append(pin_memory)
        return empty(*shape, **named)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(torch, "empty", noted)
    monkeypatch.setattr(torch.Tensor, "copy_", copied)
    monkeypatch.setattr(device, "PINNED", 4 * 4)
    values = torch.arange(size, dtype=torch.float32)
    assert device.fetched(values).equal(values)
    assert asked == []
    assert device.fetched(values.as_subclass(There)).as_subclass(torch.Tensor).equal(values)
    assert asked == ([True] if size == 3 else [])
