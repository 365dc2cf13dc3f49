"""Next-token losses over a large vocabulary: whole rows of logits against chunks of the vocabulary.

python benchmarks/head.py

Random weights of Gemma 3 270M's head (262,144 × 640). The ways run in turn in one process; medians, the spread and
ratios to the bare matrix product are printed.
"""

from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch

from mwanda.evaluation.head import losses
from mwanda.kernels.vocabulary import VOCABULARY_CHUNK


POSITIONS, HIDDEN, VOCABULARY, ROUNDS = 512, 640, 262_144, 5


def main() -> None:
    """Print a table."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator) * 0.05
    hidden = torch.randn(POSITIONS, HIDDEN, generator=generator)
    targets = torch.randint(0, VOCABULARY, (POSITIONS,), generator=generator)
    buffer = torch.empty(POSITIONS, VOCABULARY_CHUNK)

    def bare() -> None:
        for begin in range(0, VOCABULARY, VOCABULARY_CHUNK):
            torch.mm(hidden, weight[begin : begin + VOCABULARY_CHUNK].T, out=buffer)

    def rows() -> None:
        for part, wanted in zip(hidden.split(64), targets.split(64), strict=True):
            torch.nn.functional.cross_entropy(part @ weight.T, wanted, reduction="none")

    ways: dict[str, Callable[[], object]] = {
        "bare matrix product": bare,
        "whole rows, 64 positions": rows,
        "chunks of the vocabulary": lambda: losses(hidden, targets, weight),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        for name, way in ways.items():
            start = perf_counter()
            way()
            if turn:  # the first turn warms up
                seconds[name].append(perf_counter() - start)
    base = seconds["bare matrix product"]
    print(f"{POSITIONS} positions, {torch.get_num_threads()} threads, {ROUNDS} rounds")
    for name, taken in seconds.items():
        ratio = median(one / other for one, other in zip(taken, base, strict=True))
        print(f"{name:<26} {median(taken):7.3f} s ({min(taken):.3f} – {max(taken):.3f})   × {ratio:.2f} of the product")


if __name__ == "__main__":
    main()
