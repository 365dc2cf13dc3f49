"""New weights that match the dense model's outputs, against least squares on both kinds of inputs."""

import pytest
import torch
from jaxtyping import Float
from layers import PATTERNS, correlated_inputs, layer, random_weight
from torch import Tensor

from mwanda.patterns import Pattern
from mwanda.solvers import Layer, WeightSolver
from mwanda.solvers.admm import ADMM
from mwanda.solvers.gram import regularised, regularised_cross
from mwanda.solvers.sparsegpt import SparseGPT
from mwanda.statistics import LanguageStatistics, Needs, SequenceSums


SOLVERS: dict[str, WeightSolver] = {
    "sparsegpt": SparseGPT(match="dense"),
    "sparsegpt by loss": SparseGPT(match="dense", column_order="loss"),
    "admm": ADMM(400, match="dense", shrinkage=0.1),
    "admm of scores": ADMM(400, "scores", match="dense", shrinkage=0),
}

every_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
every_pattern = pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)


def both_inputs(tokens: int = 300, features: int = 16) -> tuple[Float[Tensor, "N in"], Float[Tensor, "N in"]]:
    """Return inputs of the dense model, and what they become behind pruned layers."""
    dense = correlated_inputs(tokens, features)
    generator = torch.Generator().manual_seed(5)
    lost = 0.2 * torch.randn(features, features, generator=generator)
    return dense, dense @ (torch.eye(features) - lost) + 0.3 * torch.randn(dense.shape, generator=generator)


def beside(one: Layer, inputs: Tensor, dense: Tensor) -> Layer:
    """Return a layer with the statistics of both."""
    statistics = LanguageStatistics.zeros(1, inputs.shape[1], needs=Needs.CROSS_MOMENTS)
    statistics.add(SequenceSums.of(inputs[None], Needs.CROSS_MOMENTS, dense=dense[None]), torch.tensor([0]))
    return Layer(one.weight, statistics, one.budget, one.scores)


def error(weight: Tensor, found: Tensor, inputs: Tensor, dense: Tensor) -> float:
    return float((dense.double() @ weight.double().T - inputs.double() @ found.double().T).square().sum())


def test_solvers_ask_for_what_they_match() -> None:
    assert all(solver.needs == Needs.CROSS_MOMENTS for solver in SOLVERS.values())
    assert {ADMM().needs, SparseGPT().needs} == {Needs.SECOND_MOMENTS}


@every_solver
@every_pattern
def test_the_dense_model_s_outputs_are_come_nearer(solver: WeightSolver, pattern: Pattern) -> None:
    dense, inputs = both_inputs()
    weight = random_weight(6, 16)
    one = layer(weight, inputs, pattern, 0.5, "row" if "admm" in repr(solver).lower() else "matrix")
    own = type(solver)(**{**vars(solver), "match": "layer"})
    found, plain = solver.solve(beside(one, inputs, dense)), own.solve(one)
    assert int((found == 0).sum()) == one.budget.planned
    assert error(weight, found, inputs, dense) < 0.9 * error(weight, plain, inputs, dense)


@pytest.mark.parametrize("mask", ["gradual", "scores"])
def test_the_fixed_point_is_masked_least_squares_on_the_dense_outputs(mask: str) -> None:
    dense, inputs = both_inputs()
    weight = random_weight(5, 16)
    found = ADMM(3000, mask, penalty=0.3, shrinkage=0, match="dense").solve(  # type: ignore[arg-type]
        beside(layer(weight, inputs), inputs, dense)
    )
    outputs = dense.double() @ weight.double().T
    for row in range(5):
        kept = found[row] != 0
        best = torch.linalg.lstsq(inputs[:, kept].double(), outputs[:, row : row + 1]).solution[:, 0]
        torch.testing.assert_close(found[row, kept].double(), best, rtol=2e-3, atol=2e-3)


def test_surgery_starts_from_the_least_squares_weights() -> None:
    dense, inputs = both_inputs()
    weight = random_weight(5, 16)
    one = beside(layer(weight, inputs, sparsity=0, group="matrix"), inputs, dense)
    found = SparseGPT(damping=1e-9, match="dense").solve(one)
    best = torch.linalg.lstsq(inputs.double(), dense.double() @ weight.double().T).solution.T
    torch.testing.assert_close(found.double(), best, rtol=1e-3, atol=1e-4)


@every_solver
def test_with_the_same_inputs_there_is_nothing_else_to_match(solver: WeightSolver) -> None:
    _, inputs = both_inputs()
    inputs[:, 3] = 0
    weight = random_weight(6, 16)
    weight[0, :3] = 0
    one = layer(weight, inputs, group="row" if "admm" in repr(solver).lower() else "matrix")
    own = type(solver)(**{**vars(solver), "match": "layer"})
    found, expected = solver.solve(beside(one, inputs, inputs)), own.solve(one)
    assert torch.equal(found == 0, expected == 0)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_regularised_cross_moments_are_the_regularised_gram_where_inputs_are_the_same() -> None:
    _, inputs = both_inputs()
    gram = (inputs.T @ inputs).double()
    for shrinkage, damping in ((0, 0), (0.3, 0.01), (1, 0)):
        found = regularised_cross(gram, gram, shrinkage, damping)
        torch.testing.assert_close(found, regularised(gram, shrinkage, damping))


def test_weighted_tokens_weigh_in_cross_moments_too() -> None:
    dense, inputs = both_inputs(6)
    weights = torch.tensor([2.0, 0.5], dtype=torch.float64)
    sums = SequenceSums.of(inputs.view(2, 3, 16), Needs.CROSS_MOMENTS, weights, dense.view(2, 3, 16))
    expected = 2 * dense[:3].T @ inputs[:3] + 0.5 * dense[3:].T @ inputs[3:]
    torch.testing.assert_close(sums.cross_moment, expected, rtol=1e-4, atol=1e-4)
