"""The k lowest values of each row, and the scratch memory that makes finding them fast."""

import math
import threading
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor


def lowest(scores: Float[Tensor, "groups size"], count: int | Int[Tensor, " groups"]) -> Bool[Tensor, "groups size"]:
    """Mark the `count` lowest scores of each row; among equals the leftmost first, as in a stable sort.

    Args:
        scores: of the groups, a row each.
        count: of all rows, or one of each.
    """
    if isinstance(count, Tensor):
        return _lowest_by_sorting(scores, count.to(scores.device)[:, None])
    if count <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    if count >= scores.shape[1]:
        return torch.ones_like(scores, dtype=torch.bool)
    if scores.device.type == "cpu" and scores.dtype in (torch.float32, torch.float64):
        return _lowest_by_partition(scores, count)
    if len(scores) <= FEW_ROWS and scores.numel() <= SORTED:
        return _first_of_sorted(scores, count)
    if len(scores) <= FEW_ROWS:
        scores = in_order(scores)
        threshold = kth_by_bisection(scores, count)
    else:
        threshold = torch.kthvalue(scores, count, dim=1, keepdim=True).values
    return _up_to(threshold, scores, count)


def _up_to(threshold: Tensor, scores: Tensor, count: int | Tensor) -> Bool[Tensor, "groups size"]:
    """Mark the scores below each row's threshold, and of its equals as many as are still needed, from the left."""
    below, tied = scores < threshold, scores == threshold
    still_needed = count - below.sum(dim=1, keepdim=True)
    return below | (tied & (tied.cumsum(dim=1, dtype=torch.int32) <= still_needed))


def _first_of_sorted(scores: Float[Tensor, "groups size"], count: int) -> Bool[Tensor, "groups size"]:
    """Mark the first of a stable sort, by as few operations as can be: starting each takes longer than its work."""
    order = (scores + 0.0).sort(dim=1, stable=True).indices[:, :count]  # no zero is below another
    marks = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    # Not scattered: where results have to repeat, that would sort the places first.
    places = order + torch.arange(len(scores), device=scores.device)[:, None] * scores.shape[1]
    marks.view(-1).index_fill_(0, places.flatten(), True)
    return marks


def _lowest_by_sorting(
    scores: Float[Tensor, "groups size"], count: Int[Tensor, "groups 1"]
) -> Bool[Tensor, "groups size"]:
    if scores.device.type == "cpu" and scores.dtype in (torch.float32, torch.float64):
        ordered = torch.from_numpy(np.sort(scores.detach().numpy(), axis=1))  # by vectors
    else:
        ordered = scores.sort(dim=1).values
    size = scores.shape[1]
    threshold = ordered.gather(1, (count - 1).clamp(0, size - 1))
    return (_up_to(threshold, scores, count) & (count > 0)) | (count >= size)


FEW_ROWS = 64
"""Rows up to which all of an accelerator looks at each of them: `kthvalue` gives a row to one of its many parts."""


SORTED = 1 << 22
"""Scores of few rows up to which sorting them takes less time than to begin a look at them for each bit."""


def in_order(scores: Float[Tensor, "groups size"]) -> Int[Tensor, "groups size"]:
    """Return whole numbers in the order of the scores: their bits, all but the sign turned round where it is set.

    What cannot be compared (NaN) comes last, and no zero is below another.
    """
    values = scores if scores.dtype == torch.float64 else scores.float()
    bits = (values + 0.0).view(torch.int64 if values.dtype == torch.float64 else torch.int32)
    largest = torch.iinfo(bits.dtype).max
    bits = torch.where(bits < 0, bits ^ largest, bits)
    return bits.masked_fill_(values.isnan(), largest)


def kth_by_bisection(keys: Int[Tensor, "groups size"], count: int) -> Int[Tensor, "groups 1"]:
    """Return the key at the given place of each sorted row, from 1, by counting keys below; waits for nothing."""
    limits = torch.iinfo(keys.dtype)
    negative = (keys < 0).sum(dim=1, keepdim=True)
    found = torch.where(negative < count, 0, limits.min).to(keys.dtype)
    for bit in reversed(range(limits.bits - 1)):
        higher = found + (1 << bit)
        below = (keys < higher).sum(dim=1, keepdim=True)
        found = torch.where(below < count, higher, found)
    return found


CACHED = 1 << 16
"""Scores handled at once on the CPU: few enough to stay in its cache, which is worth a factor of three and more."""


AT_ONCE = 1 << 24
"""Scores handled at once elsewhere, so that little memory is taken besides the model's."""


def rows_at_once(weight: Float[Tensor, "out in"]) -> int:
    """Return how many rows of a matrix to score at a time on its device."""
    return max(1, (CACHED if weight.device.type == "cpu" else AT_ONCE) // weight.shape[1])


class Scratch(threading.local):
    """Memory that is used again and again: to ask for it anew at each few rows costs more than to work on them."""

    def __init__(self) -> None:
        self._held: dict[str, NDArray[Any]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return an array of this shape with any content, valid until the same name is asked for again."""
        size = math.prod(shape)
        held = self._held.get(name)
        if held is None or held.size < size or held.dtype != dtype:
            held = self._held[name] = np.empty(max(size, CACHED), dtype=dtype)
        return held[:size].reshape(shape)


SCRATCH = Scratch()


def _lowest_by_partition(scores: Float[Tensor, "groups size"], count: int) -> Bool[Tensor, "groups size"]:
    """Select with NumPy's partition, several times as fast as `torch.kthvalue` on the CPU."""
    values = scores.detach().numpy()
    marks = np.empty(values.shape, dtype=bool)
    step = max(1, CACHED // values.shape[1])
    for first in range(0, len(values), step):
        part, out = values[first : first + step], marks[first : first + step]
        ordered = SCRATCH.array("ordered", part.shape, part.dtype)
        ordered[:] = part
        ordered.partition(count - 1, axis=1)
        threshold = ordered[:, count - 1 : count]
        np.less_equal(part, threshold, out=out)
        # Only where an equal of the threshold was left over is there anything to decide between equals. What cannot
        # be compared (NaN) sorts last, and leaves the row too few marks, as in the general way above.
        split = np.flatnonzero(ordered[:, count:].min(axis=1) <= threshold[:, 0])
        if split.size:
            rows, level = part[split], threshold[split]
            below, tied = rows < level, rows == level
            needed = count - below.sum(axis=1, keepdims=True)
            out[split] = below | (tied & (tied.cumsum(axis=1) <= needed))
    return torch.from_numpy(marks)
