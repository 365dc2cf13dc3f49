"""The similarity of two languages in a matrix: rank correlation of activations, and overlap of masks."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.stats import rankdata
from torch import Tensor


AT_ONCE = 1 << 18
"""Weights of each mask that are compared at once; float32 counts them exactly."""


def rank_correlation(profiles: Float[Tensor, "L I"]) -> Float[Tensor, "L L"]:
    """Return Spearman's correlation of every two languages' activation profiles: Pearson's of their ranks.

    Equal values share their mean rank. Not a number where a profile is constant (a language without tokens).
    """
    ranks = rankdata(profiles.cpu().numpy(), axis=1)
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation: ndarray = (centred @ centred.T) / np.outer(norms, norms)
    return torch.from_numpy(np.clip(correlation, -1, 1))


def shared_and_either(masks: Bool[Tensor, "L W"]) -> tuple[Float[Tensor, "L L"], Float[Tensor, "L L"]]:
    """Return how many weights every two masks both keep, and how many at least one of them keeps."""
    shared = torch.zeros(len(masks), len(masks), dtype=torch.float64)
    for part in masks.split(AT_ONCE, dim=1):
        values = part.float()
        shared += (values @ values.T).double().cpu()
    kept = shared.diagonal()
    return shared, kept[:, None] + kept[None, :] - shared
