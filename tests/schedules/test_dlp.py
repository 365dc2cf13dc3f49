"""DLP's medians by sorting, and its map as the published code has it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mwanda.schedules import BlockMatrix
from mwanda.schedules.dlp import DLP, median
from mwanda.statistics import LanguageStatistics


PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)


def block(seed: int, scale: float = 1.0) -> list[BlockMatrix]:
    """Return two matrices of a block, whose inputs have norms that differ."""
    generator = torch.Generator().manual_seed(seed)
    matrices = []
    for rows, columns in ((4, 9), (6, 5)):
        statistics = LanguageStatistics.zeros(2, columns)
        statistics.sum_squares += torch.rand(2, columns, generator=generator).double()
        matrices.append(BlockMatrix(torch.randn(rows, columns, generator=generator) * scale, statistics))
    return matrices


def sorted_median(matrices: list[BlockMatrix]) -> float:
    """Return the lower median of all Wanda scores of a block, by sorting them."""
    scores = [
        each.weight.abs() * each.statistics.sum_squares.sum(dim=0).sqrt().float()
        for each in matrices
        if each.statistics is not None
    ]
    every = torch.cat([part.flatten() for part in scores]).sort().values
    return float(every[(len(every) - 1) // 2])


@PROPERTY
@given(
    values=arrays(
        np.float32,
        st.integers(1, 300),
        elements=st.one_of(
            st.floats(0, 100, width=32),
            st.sampled_from([0.0, 1.0, 3e38]),
            st.integers(0, 300).map(lambda step: float(np.float32(1 + step * 2**-23))),
        ),
    )
)
def test_median_is_that_of_torch(values: np.ndarray) -> None:
    scores = torch.from_numpy(values)
    assert median(lambda: scores.split(7)) == float(scores.median())


def test_signal_is_the_median_of_the_wanda_scores_of_the_whole_block() -> None:
    for seed in range(5):
        assert DLP().signal(block(seed)) == (-sorted_median(block(seed)),)


def test_a_block_whose_typical_score_is_higher_loses_more() -> None:
    """As published: `1 − m_k / Σ m_k`, scaled to `[0, 2α]`, around a mean keep of `1 − S`."""
    blocks = [block(seed, scale) for seed, scale in enumerate((1.0, 0.4, 2.0, 0.7))]
    medians = np.array([sorted_median(each) for each in blocks])
    importance = 1 - medians / medians.sum()
    keep = (importance - importance.min()) / (importance.max() - importance.min()) * 2 * 0.1
    expected = 1 - (keep - keep.mean() + 0.4)
    found = DLP(0.1).allocate([DLP().signal(each) for each in blocks], [0.25] * 4, 0.6, [0.0] * 4)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.argsort(found).tolist() == np.argsort(medians).tolist()
    assert max(found) - min(found) == pytest.approx(0.2)
