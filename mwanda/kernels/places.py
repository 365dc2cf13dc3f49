"""Where values of each row are; on the CPU by NumPy, whose vectorised ways are several times as fast as torch's."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def places_of_lowest(values: Float[Tensor, "rows in"], count: int) -> Int[Tensor, "rows count"]:
    """Return the places of the `count` lowest values of each row, the lowest first; NaN comes last."""
    if values.device.type != "cpu":
        return values.topk(count, dim=1, largest=False).indices
    found = values.numpy()
    if count < found.shape[1]:
        places = np.argpartition(found, count - 1, axis=1)[:, :count]
    else:
        places = np.broadcast_to(np.arange(count), found.shape)
    order = np.take_along_axis(found, places, axis=1).argsort(axis=1, kind="stable")
    return torch.from_numpy(np.take_along_axis(places, order, axis=1))


def place_of_lowest(values: Float[Tensor, "rows in"]) -> Int[Tensor, "rows 1"]:
    """Return the place of the lowest value of each row."""
    if values.device.type != "cpu":
        return values.argmin(dim=1, keepdim=True)
    return torch.from_numpy(values.numpy().argmin(axis=1, keepdims=True))


def entries(matrix: Float[Tensor, "in in"], places: Int[Tensor, "rows P"]) -> Float[Tensor, "rows P P"]:
    """Return `M_jk` of all pairs of places of each row."""
    flat = places[:, :, None] * matrix.shape[1] + places[:, None, :]
    if matrix.device.type != "cpu":
        return matrix.reshape(-1).take(flat)
    return torch.from_numpy(matrix.numpy().reshape(-1).take(flat.numpy()))


def infinite_unless(allowed: Bool[Tensor, "rows in"]) -> Float[Tensor, "rows in"]:
    """Return zero where allowed and infinity elsewhere; by arithmetic, as writing by a random mask is slow."""
    return allowed.float().reciprocal_().sub_(1)
