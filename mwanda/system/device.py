"""Everything that knows about accelerators; no other module names one."""

import os
import resource
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import torch
from torch.utils import deterministic


VISIBLE = "CUDA_VISIBLE_DEVICES"

DeviceChoice = Literal["auto", "cpu", "cuda"]


def choose(device: DeviceChoice) -> torch.device:
    """Return the device to run on: with `auto` the GPU when there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def available(device: DeviceChoice) -> bool:
    """Return whether `device` can be used here."""
    return device != "cuda" or torch.cuda.is_available()


def default_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the device itself computes in it, and float32 elsewhere: on the CPU, and on older GPUs."""
    if device.type == "cpu":
        return torch.float32
    emulated = torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float32 if device.type == "cuda" and emulated else torch.bfloat16


def exact(device: torch.device) -> torch.device:
    """Return the device with its number: of `cuda` the one that this process has taken."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor of the CPU on a device, without waiting for what the device is doing."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.contiguous().pin_memory()  # which copies as it lies, and cannot write where places are shared
    return tensor.to(device, non_blocking=True)


PINNED = 1 << 27
"""Bytes up to which a copy from a GPU goes to memory that it writes to directly, and that is kept for the next one."""


def fetched(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in the computer's memory, several times as fast where a GPU can write to it directly."""
    if tensor.device.type != "cuda" or tensor.nbytes > PINNED:
        return tensor.cpu()
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor)


class Mark:
    """A point in the work of a device, which is asynchronous: no time is known before `seconds_since` waits for it."""

    def __init__(self, device: torch.device):
        self._event: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)
            self._event.record(torch.cuda.current_stream(device))
        else:
            self._time = perf_counter()

    def seconds_since(self, earlier: "Mark") -> float:
        """Return the time that the device has taken from one point to the other."""
        if self._event is None or earlier._event is None:
            return self._time - earlier._time
        self._event.synchronize()
        return float(earlier._event.elapsed_time(self._event)) / 1000


def wait() -> None:
    """Wait until all GPUs in use have done what they were told."""
    if torch.cuda.is_initialized():
        for number in range(torch.cuda.device_count()):
            torch.cuda.synchronize(number)


def take(local_rank: int) -> None:
    """Make the GPU of this number the one that `cuda` means in this process."""
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank % torch.cuda.device_count())


def visible() -> list[str]:
    """Return the GPUs that this process may use, as their names are given to others; asks no driver."""
    named = os.environ.get(VISIBLE)
    if named is not None:
        return [each for each in named.split(",") if each]
    return [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


def see_only(name: str) -> None:
    """Have this process see one GPU; before it has used any."""
    os.environ[VISIBLE] = name


def communication() -> str:
    """Return how processes talk to each other: about what is in memory by gloo, about what is on GPUs by NCCL."""
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Have operations give the same bits each time where a device lets one choose, as GPUs do for attention."""
    if device.type == "cpu":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    settings: Any = deterministic
    filled = settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    # All memory is written before it is read; to fill it first is a third of all that would be started.
    settings.fill_uninitialized_memory = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of operations that are not, none of which decides anything here
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        settings.fill_uninitialized_memory = filled


def describe(device: torch.device) -> str:
    """Return the device's name for the record."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def peak_device_bytes(device: torch.device) -> int:
    """Return the most memory that tensors of this process have held on each GPU, added up; zero on the CPU."""
    return sum(torch.cuda.max_memory_allocated(each) for each in _in_use(device))


def reset_peak(device: torch.device) -> None:
    """Forget the peaks of an earlier job in the same process."""
    for each in _in_use(device):
        torch.cuda.reset_peak_memory_stats(each)


def _in_use(device: torch.device) -> range:
    """Return the GPUs over which a model may be spread that begins on `device`."""
    return range(torch.cuda.device_count() if device.type == "cuda" else 0)


def release() -> None:
    """Give cached device memory back, so that the next job of a sweep finds it."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def available_bytes(device: torch.device, *, every: bool = False) -> int:
    """Return the memory that is free on the device, or on `every` one of its kind.

    On the CPU it is no more than a container's limit leaves, and a part of it for each process that torchrun has
    started here.
    """
    if device.type == "cuda":
        devices = range(torch.cuda.device_count()) if every else [device]
        return sum(int(torch.cuda.mem_get_info(each)[0]) for each in devices)
    import psutil

    free = min([int(psutil.virtual_memory().available), *_left_in_container()])
    return free // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _left_in_container() -> list[int]:
    """Return what the control group of this process leaves, where it has a limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = (folder / "memory.current").read_text().strip()
        # Pages of files that were read count as used, and are given back when memory is short.
        counters = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return [int(limit) - int(used) + int(counters.get("inactive_file", 0))] if limit != "max" else []
    except (OSError, ValueError):
        return []


def peak_resident_bytes() -> int:
    """Return the most memory this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
