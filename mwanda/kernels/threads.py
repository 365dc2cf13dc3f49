"""Parts of a matrix on several threads: where work is many small steps, torch's own threads find too little in each."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch


Part = TypeVar("Part")
Result = TypeVar("Result")


def on_threads(work: Callable[[Part], Result], parts: Sequence[Part], device: torch.device) -> list[Result]:
    """Return what `work` makes of each part; on the CPU by as many threads as torch has, each part by one."""
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or len(parts) == 1:
        return [work(part) for part in parts]

    def without_gradients(part: Part) -> Result:
        with torch.no_grad():  # which is a thread's own
            return work(part)

    try:
        return list(_pool(threads).map(without_gradients, parts))
    finally:
        torch.set_num_threads(threads)  # what a thread asks for is its own, but for the library of products


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    pool = ThreadPoolExecutor(threads, "parts", initializer=torch.set_num_threads, initargs=(1,))
    all_there = Barrier(threads)  # none asks for one thread after the caller's number has been put back
    list(pool.map(lambda _: all_there.wait(), range(threads)))
    return pool
