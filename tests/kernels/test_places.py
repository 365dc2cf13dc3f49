"""Places of the lowest values on the CPU, by NumPy, and on a device, against sorts."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pretend_device import Pretend, pretend
from torch import Tensor

from mwanda.kernels.places import entries, infinite_unless, place_of_lowest, places_of_lowest


PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)
elsewhere = pytest.mark.parametrize("elsewhere", [False, True], ids=["on the CPU", "on a device"])


def on_a_device(values: Tensor, work: Callable[[Tensor], Tensor]) -> Tensor:
    """Return what `work` makes of a copy that pretends to be elsewhere, and see that nothing is waited for."""
    with pretend() as waits:
        found = work(Pretend(values.clone()))
    assert waits.total == 0
    assert isinstance(found, Pretend)
    return found.values


@PROPERTY
@given(st.data(), st.booleans())
def test_the_lowest_come_in_their_order(data: st.DataObject, elsewhere: bool) -> None:
    shape = (data.draw(st.integers(1, 5)), data.draw(st.integers(1, 40)))
    elements = st.one_of(st.just(float("inf")), st.floats(-1e6, 1e6, width=32))
    values = torch.from_numpy(data.draw(arrays(np.float32, shape, elements=elements)))
    count = data.draw(st.integers(1, shape[1]))
    places = (
        on_a_device(values, lambda each: places_of_lowest(each, count))
        if elsewhere
        else places_of_lowest(values, count)
    )
    assert all(len(set(row)) == count for row in places.tolist())
    assert values.gather(1, places).equal(values.sort(dim=1).values[:, :count])
    lowest = on_a_device(values, place_of_lowest) if elsewhere else place_of_lowest(values)
    assert values.gather(1, lowest).equal(values.min(dim=1, keepdim=True).values)


@elsewhere
def test_entries_are_those_of_all_pairs(elsewhere: bool) -> None:
    matrix = torch.randn(7, 7, generator=torch.Generator().manual_seed(0))
    places = torch.tensor([[0, 6, 3], [2, 2, 5]])
    find = partial(entries, places=Pretend(places) if elsewhere else places)
    found = on_a_device(matrix, find) if elsewhere else find(matrix)
    for row, chosen in enumerate(places.tolist()):
        assert found[row].equal(matrix[chosen][:, chosen])


def test_what_is_not_allowed_is_infinite() -> None:
    assert infinite_unless(torch.tensor([[True, False]])).tolist() == [[0.0, float("inf")]]
