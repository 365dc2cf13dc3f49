"""Energy is a ratio of sums of squares, each language by itself."""

import torch

from mwanda.inside.energy import Energy


def test_share_by_hand() -> None:
    energy = Energy.zeros(3)
    error = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [0.0, 0.0]]])
    whole = torch.tensor([[[2.0, 0.0], [0.0, 4.0]], [[3.0, 0.0], [0.0, 4.0]]])
    energy.add(error, whole, torch.tensor([2, 0]))
    energy.add(error[:1], whole[:1], torch.tensor([2]))
    share = energy.share()
    assert share[[0, 2]].tolist() == [9 / 25, 5 / 20]
    assert share[1].isnan()
