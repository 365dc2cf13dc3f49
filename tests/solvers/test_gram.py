import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import correlated_inputs, errors, random_weight

from mwanda.solvers.gram import regularised, squared_error, with_active_inputs


PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)


def test_without_regularisation_it_is_the_same_matrix_and_another_tensor() -> None:
    gram = torch.eye(3) + 1
    found = regularised(gram, 0, 0)
    assert torch.equal(found, gram)
    found[0, 0] = 7
    assert gram[0, 0] == 2


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("damping", [0.0, 0.01])
def test_it_is_the_formula(shrinkage: float, damping: float) -> None:
    inputs = correlated_inputs(20, 6).double()
    gram = inputs.T @ inputs
    found = regularised(gram, shrinkage, damping)
    for row in range(6):
        for column in range(6):
            expected = (1 - shrinkage) * gram[row, column]
            if row == column:
                expected = gram[row, row] + damping * gram.trace() / 6
            assert found[row, column] == pytest.approx(float(expected), rel=1e-12)


@PROPERTY
@given(seed=st.integers(0, 100), shrinkage=st.floats(0.01, 1), tokens=st.integers(1, 4))
def test_shrinkage_makes_a_matrix_of_few_tokens_invertible(seed: int, shrinkage: float, tokens: int) -> None:
    inputs = torch.randn(tokens, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = regularised(inputs.T @ inputs, shrinkage, 0)
    assert torch.linalg.eigvalsh(found)[0] >= shrinkage * inputs.square().sum(dim=0).min() * (1 - 1e-9)


def test_only_inputs_that_are_never_active_get_a_one() -> None:
    gram = torch.diag(torch.tensor([2.0, 0.0, 3.0]))
    assert with_active_inputs(gram, gram.diagonal() == 0).diagonal().tolist() == [2, 1, 3]


def test_the_squared_error_is_that_of_the_outputs() -> None:
    inputs, before, after = correlated_inputs(20, 6), random_weight(3, 6), random_weight(3, 6, seed=1)
    expected = (inputs.double() @ (before.double() - after.double()).T).square().sum(dim=0)
    gram = inputs.double().T @ inputs.double()
    torch.testing.assert_close(squared_error(before, after, gram), expected)
    torch.testing.assert_close(errors(before, after, gram), expected)
