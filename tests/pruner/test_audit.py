"""The count of zeros against the plan."""

import pytest
import torch
from plain_decoder import PlainDecoder
from torch import nn

from mwanda.errors import AuditError, SparsityError
from mwanda.export.bits import digests
from mwanda.models import Block, Matrix, blocks_of
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner.audit import MatrixPlan, audit, check_blocks


def matrix(name: str, zeros: int = 0) -> Matrix:
    """Return a 3 × 4 matrix of ones, the first `zeros` of them zero."""
    module = nn.Linear(4, 3)
    module.weight.data = (torch.arange(12) >= zeros).float().reshape(3, 4)
    return Matrix(name, module, 0)


def block(*matrices: Matrix) -> Block:
    return Block(0, "layers.0", nn.Module(), matrices, "layers")


def zeros_of(model: PlainDecoder) -> list[int]:
    """Return the zeros that each block holds, at a target of one half."""
    counts = check_blocks(blocks_of(model), Unstructured(), "row", 0.5)
    return [sum(int(counts[each.name].sum()) for each in part.matrices) for part in blocks_of(model)]


def plan(name: str, planned: int) -> MatrixPlan:
    return MatrixPlan(name, (3, 4), 0, planned / 12, 0, planned)


def test_zeros_are_counted_into_the_plan() -> None:
    plans = [plan("b", 5), plan("a", 2)]
    audit([block(matrix("a", 2), matrix("b", 5))], plans)
    assert [each.zeros for each in plans] == [5, 2]
    assert [each.mask for each in plans] == digests([matrix("b", 5).weight, matrix("a", 2).weight])


@pytest.mark.parametrize("zeros", [4, 6])
def test_one_zero_more_or_less_than_planned_is_an_error(zeros: int) -> None:
    with pytest.raises(AuditError, match=f"a holds {zeros} zeros where 5 were planned"):
        audit([block(matrix("a", zeros))], [plan("a", 5)])


def test_a_matrix_without_a_plan_is_an_error_that_names_it() -> None:
    with pytest.raises(AuditError, match=r"not pruned: b$"):
        audit([block(matrix("a", 5), matrix("b", 5))], [plan("a", 5)])


def test_a_matrix_pruned_twice_is_an_error() -> None:
    with pytest.raises(AuditError, match="exactly once"):
        audit([block(matrix("a", 5))], [plan("a", 5), plan("a", 5)])


def test_a_plan_for_an_unknown_matrix_is_an_error() -> None:
    with pytest.raises(AuditError, match="exactly once"):
        audit([block(matrix("a", 5))], [plan("a", 5), plan("b", 5)])


def test_zeros_before_pruning_are_counted_by_block() -> None:
    model = PlainDecoder(hidden=4, inner=6, blocks=2)
    model.layers[1].up.weight.data[:2] = 0
    model.layers[1].down.weight.data[0, 0] = -0.0
    model.embed.weight.data.zero_()
    assert zeros_of(model) == [0, 9]


def test_as_many_zeros_as_the_target_are_accepted_and_one_more_is_not() -> None:
    model = PlainDecoder(hidden=4, inner=6, blocks=1)
    model.layers[0].up.weight.data.zero_()
    assert zeros_of(model) == [24]
    model.layers[0].down.weight.data[0, 0] = 0
    with pytest.raises(SparsityError, match=r"sparsity=0\.5: 0\.5208 of the prunable weights are zero already"):
        zeros_of(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_not_finite_is_an_error_that_names_its_matrix(value: float) -> None:
    model = PlainDecoder(blocks=2)
    model.layers[1].down.weight.data[2, 3] = value
    with pytest.raises(SparsityError, match=r"layers\.1\.down holds weights that are not finite"):
        zeros_of(model)
