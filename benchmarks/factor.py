"""What SparseGPT's factorisation of the second moments costs, in four ways side by side.

    python benchmarks/factor.py --inputs 640 2048 --rounds 5

- `as published`: Cholesky, inverse, Cholesky, for each matrix.
- `one and a solve`: one Cholesky of the reversed matrix and a triangular solve, which give the same factor.
- `feedback`: that Cholesky alone and the inverses of its blocks of columns (`solvers.sparsegpt`).
- `shared`: the same, once for the matrices of a block that have the same inputs: query, key and value; gate and up.

A block has seven matrices: six of these multiply as many inputs as the hidden state has, one four times as many. Ways
take turns in each round, all in one process; what is printed are medians, lowest and highest of ratios within a round.
"""

import argparse
from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter

import torch
from torch import Tensor

from mwanda.solvers.gram import Shared
from mwanda.solvers.sparsegpt import SparseGPT, feedback


WIDER = 4


def as_published(hessian: Tensor) -> Tensor:
    """Return U with `UᵀU = H⁻¹`."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.float()


def by_solving(hessian: Tensor) -> Tensor:
    """Return the same factor from one factorisation."""
    upper = torch.linalg.cholesky(hessian.flip(0, 1)).flip(0, 1)
    identity = torch.eye(len(hessian), dtype=hessian.dtype)
    factor: Tensor = torch.linalg.solve_triangular(upper, identity, upper=True)
    return factor.float()


def of_blocks(hessian: Tensor) -> Tensor:
    """Return what the solver works from, for blocks of its columns."""
    return feedback(hessian, [len(part) for part in hessian.split(SparseGPT().columns)])


def block_of(inputs: int) -> list[Tensor]:
    """Return the second moments of the inputs of a block's seven matrices; those of three and of two are the same."""
    generator = torch.Generator().manual_seed(0)

    def moment(features: int) -> Tensor:
        rows = torch.randn(2 * features, features, generator=generator)
        return rows.T @ rows

    attention, output, feed_forward, down = (moment(each) for each in (inputs, inputs, inputs, WIDER * inputs))
    return [attention, attention.clone(), attention.clone(), output, feed_forward, feed_forward.clone(), down]


def ways(grams: list[Tensor]) -> Mapping[str, Callable[[], list[Tensor]]]:
    """Return the four ways to make the factors of a block."""
    method = SparseGPT()

    def shared() -> list[Tensor]:
        kept = Shared()
        return [kept.of(gram, method, lambda gram=gram: of_blocks(method.hessian(gram))) for gram in grams]  # type: ignore[misc]

    return {
        "as published": lambda: [as_published(method.hessian(gram)) for gram in grams],
        "one and a solve": lambda: [by_solving(method.hessian(gram)) for gram in grams],
        "feedback": lambda: [of_blocks(method.hessian(gram)) for gram in grams],
        "shared": shared,
    }


def measure(inputs: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each way in each round, after one to warm up."""
    chosen = ways(block_of(inputs))
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    for number in range(rounds + 1):
        for name, way in chosen.items():
            start = perf_counter()
            way()
            if number:
                seconds[name].append(perf_counter() - start)
    return seconds


def main() -> None:
    """Print a line for each width and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, nargs="+", default=[640, 1024])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for inputs in options.inputs:
        found = measure(inputs, options.rounds)
        first = found["as published"]
        for name, seconds in found.items():
            ratios = [mine / theirs for mine, theirs in zip(seconds, first, strict=True)]
            span = f"({min(ratios):.2f} – {max(ratios):.2f})"
            print(f"{inputs:6} inputs  {name:18} {median(seconds):8.2f} s  {median(ratios):.2f} {span}", flush=True)


if __name__ == "__main__":
    main()
