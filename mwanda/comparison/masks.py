"""How far the masks of two runs agree, block by block."""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from mwanda.comparison.blocks import block_numbers
from mwanda.comparison.configurations import Configuration
from mwanda.comparison.records import Run
from mwanda.export.base import MASKS, SHAPES


if TYPE_CHECKING:
    from pandas import DataFrame

Counts = dict[str, tuple[int, int, int, int]]
COLUMNS = ("configuration", "other", "seed", "layer", "intersection_over_union", "by_chance")


def overlap(every: Sequence[Configuration]) -> "DataFrame":
    """Return the overlap of the kept weights of every two configurations that exported masks, a row for each block.

    Compared are the runs of the first seed that both have, of one model: what differs in a weight's name or shape is
    left out.
    """
    import pandas

    with_masks = [each for each in every if any(_path(run) is not None for run in each.runs)]
    rows = []
    for one, two in combinations(with_masks, 2):
        seeds = {run.seed: run for run in two.runs if _path(run) is not None}
        pairs = [(run, seeds[run.seed]) for run in one.runs if run.seed in seeds and _path(run) is not None]
        pairs = [pair for pair in pairs if pair[0].settings["model"] == pair[1].settings["model"]]
        if not pairs:
            continue
        first, second = pairs[0]
        counts = _counts(_path(first), _path(second))
        for layer, (shared, either, kept, size) in by_block(counts, first.results["sparsity"]).items():
            mine = kept / size
            other = (shared + either - kept) / size
            agree = shared / either if either else 1.0
            rows.append((one.label, two.label, first.seed, layer, agree, by_chance(mine, other)))
    return pandas.DataFrame(rows, columns=list(COLUMNS))


def by_block(counts: Counts, sparsity: Mapping[str, Any]) -> dict[int, tuple[int, int, int, int]]:
    """Return the counts of each block, summed over its matrices."""
    prefixes = block_numbers([each["name"] for each in sparsity["per_matrix"]], len(sparsity["per_layer"]))
    totals: dict[int, tuple[int, int, int, int]] = {}
    for name, own in counts.items():
        before = totals.get(prefixes[name], (0, 0, 0, 0))
        totals[prefixes[name]] = (before[0] + own[0], before[1] + own[1], before[2] + own[2], before[3] + own[3])
    return dict(sorted(totals.items()))


def agreement(one: UInt8[ndarray, "out bytes"], two: UInt8[ndarray, "out bytes"]) -> tuple[int, int, int]:
    """Return how many weights both of two packed masks keep, either of them, and the first."""
    counts = (one & two, one | two, one)
    shared, either, kept = (int(np.bitwise_count(each).sum(dtype=np.int64)) for each in counts)
    return shared, either, kept


def by_chance(first: float, second: float) -> float:
    """Return the intersection over union of two independent masks that keep these shares of the weights."""
    shared = first * second
    either = first + second - shared
    return shared / either if either else 1.0


def _counts(first: Path | None, second: Path | None) -> Counts:
    from safetensors import safe_open

    assert first is not None
    assert second is not None
    found: Counts = {}
    with safe_open(first, framework="numpy") as one, safe_open(second, framework="numpy") as two:
        shapes, others = (json.loads(each.metadata()[SHAPES]) for each in (one, two))
        for name in one.keys():  # noqa: SIM118
            if others.get(name) == shapes[name]:
                rows, columns = map(int, shapes[name].split("x"))
                found[name] = (*agreement(one.get_tensor(name), two.get_tensor(name)), rows * columns)
    return found


def _path(run: Run) -> Path | None:
    return run.file(MASKS)
