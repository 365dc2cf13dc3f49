"""Selection on a device that is not the CPU gives what a stable sort gives."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pretend_device import Pretend, pretend
from torch import Tensor

from mwanda.kernels import lowest as kernel
from mwanda.kernels.lowest import in_order, kth_by_bisection, lowest


PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)
# Few distinct values give many ties; −1 stands for a weight that is zero already.
SCORES = st.one_of(
    st.sampled_from([-1.0, 0.0, -0.0, 1.0, 2.0, float("inf"), float("nan")]), st.floats(0, 2.0**90, width=32)
)


def stable(scores: Tensor, count: int) -> Tensor:
    """Mark the first `count` entries of each row's stable sort, in which NaN comes last."""
    marks = torch.zeros(scores.shape, dtype=torch.bool)
    order = np.argsort(scores.numpy(), axis=1, kind="stable")[:, :count]
    return marks.scatter_(1, torch.from_numpy(order.copy()), value=True)


@PROPERTY
@given(st.data(), st.sampled_from([torch.float32, torch.float64]), st.booleans())
def test_few_rows_are_selected_as_by_a_stable_sort(data: st.DataObject, dtype: torch.dtype, many: bool) -> None:
    """`kthvalue` gave a whole matrix to one part of a GPU: 30 s for an 8B. Many scores are not sorted."""
    shape = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 40)))
    scores = torch.from_numpy(data.draw(arrays(np.float32, shape, elements=SCORES))).to(dtype)
    count = data.draw(st.integers(0, shape[1]))
    with pretend() as waits, patch.object(kernel, "SORTED", 0 if many else kernel.SORTED):
        found = lowest(Pretend(scores.clone()), count)
    assert found.values.equal(stable(scores, count))  # type: ignore[attr-defined]
    assert waits.total == 0


@PROPERTY
@given(st.data(), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]), st.booleans())
def test_rows_of_different_counts_are_selected_as_by_stable_sorts(
    data: st.DataObject, dtype: torch.dtype, elsewhere: bool
) -> None:
    shape = (data.draw(st.integers(1, 5)), data.draw(st.integers(1, 40)))
    scores = torch.from_numpy(data.draw(arrays(np.float32, shape, elements=SCORES))).to(dtype)
    scores = scores.nan_to_num(nan=5.0)
    counts = torch.tensor(data.draw(st.lists(st.integers(0, shape[1]), min_size=shape[0], max_size=shape[0])))
    expected = torch.cat([stable(row[None].float(), count) for row, count in zip(scores, counts.tolist(), strict=True)])
    if not elsewhere:
        assert lowest(scores, counts).equal(expected)
        return
    with pretend() as waits:
        found = lowest(Pretend(scores.clone()), Pretend(counts))
    assert found.values.equal(expected)  # type: ignore[attr-defined]
    assert waits.total == 0


def test_many_rows_are_selected_the_other_way_with_the_same_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.randint(0, 5, (9, 33), generator=torch.Generator().manual_seed(0)).float()
    monkeypatch.setattr(kernel, "FEW_ROWS", 0)
    with pretend():
        found = lowest(Pretend(scores), 16)
    assert found.values.equal(stable(scores, 16))  # type: ignore[attr-defined]


def test_keys_are_in_the_order_of_the_scores() -> None:
    scores = torch.tensor([[-torch.inf, -2.0, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, torch.inf, torch.nan]])
    keys = in_order(scores)[0].tolist()
    assert keys == sorted(keys)
    assert keys[4] == keys[5]
    assert len(set(keys)) == len(keys) - 1
    assert in_order(-scores)[0, -1] == keys[-1]  # NaN of either sign


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_every_key_is_found_by_its_place(dtype: torch.dtype) -> None:
    limits = torch.iinfo(dtype)
    keys = torch.tensor([[limits.min, -5, -1, 0, 0, 3, limits.max]], dtype=dtype)
    assert [int(kth_by_bisection(keys, place)) for place in range(1, 8)] == keys[0].tolist()
