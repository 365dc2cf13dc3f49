"""Where the time of `order=arrival` goes: the share of each stage in pruning as a whole.

    python benchmarks/stages.py --tokens 8192

Stages are timed from outside, around the pruner's own functions; what is left is the forward pass with the walk.
"""

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median
from time import perf_counter
from typing import Any
from unittest.mock import patch

from workload import GEMMA, Task, Workload, ours

from mwanda.pruner import engine
from mwanda.pruner.observe import Observer
from mwanda.pruner.visitors import OnArrival


STAGES: dict[str, tuple[Any, str]] = {
    "sums of squares": (Observer, "add"),
    "scoring, masking and zeroing": (OnArrival, "_remove"),
    "zeros before": (engine, "check_blocks"),
    "audit": (engine, "audit"),
}


def shares(task: Task) -> dict[str, float]:
    """Prune once, and return the share of the whole time that each stage takes."""
    spent = dict.fromkeys(STAGES, 0.0)
    with ExitStack() as stack:
        for stage, (owner, name) in STAGES.items():
            stack.enter_context(patch.object(owner, name, _timed(getattr(owner, name), spent, stage)))
        start = perf_counter()
        ours(task)
        whole = perf_counter() - start
    return {stage: seconds / whole for stage, seconds in spent.items()}


def _timed(function: Callable[..., Any], spent: dict[str, float], stage: str) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Any:
        start = perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            spent[stage] += perf_counter() - start

    return timed


def main() -> None:
    """Print a line for each stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=GEMMA)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds, after one to warm up")
    options = parser.parse_args()
    task = Workload(options.model, options.tokens).build()
    task.keep()
    ours(task)
    rounds = []
    for _ in range(options.rounds):
        task.restore()
        rounds.append(shares(task))
    for stage in STAGES:
        found = [each[stage] for each in rounds]
        print(f"{stage:30} {median(found):6.1%} ({min(found):.1%} – {max(found):.1%})")
    rest = [1 - sum(each.values()) for each in rounds]
    print(f"{'forward pass and walk':30} {median(rest):6.1%} ({min(rest):.1%} – {max(rest):.1%})")


if __name__ == "__main__":
    main()
