"""Inner products with what would be removed, against weight gradients written out."""

import pytest
import torch
from plain_decoder import CALIBRATION, PlainDecoder, matrices_of, prune_plain
from pruning_oracle import capture
from torch import Tensor

from mwanda.criteria import Criterion
from mwanda.criteria.magnitude import Magnitude
from mwanda.criteria.mwanda import MWanda
from mwanda.criteria.wanda import Wanda
from mwanda.patterns.n_of_m import NOfM
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner.damage import products
from mwanda.pruner.damage.products import directional_products, removal_levels, routed_products
from mwanda.statistics import LanguageStatistics, Needs, SequenceSums


LEVELS = (0.25, 0.5, 0.8)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def case() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return inputs and gradients of 4 sequences of 6 tokens, a weight, and codes of 3 levels."""
    codes = torch.randint(0, 4, (5, 7), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    return random(4, 6, 7, seed=1), random(4, 6, 5, seed=2), random(5, 7, seed=4), codes


def written_out(inputs: Tensor, gradients: Tensor, weight: Tensor, codes: Tensor, power: int = 1) -> Tensor:
    """Return the products of one sequence, or the squares of those of single weights."""
    gradient = gradients.T @ inputs
    return torch.stack([(gradient * weight * (codes <= level)).pow(power).sum() for level in range(3)])


@pytest.mark.parametrize("at_once", [1, 60, 10_000])
def test_products_are_those_of_the_weight_gradient(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "GRADIENTS_AT_ONCE", at_once)
    inputs, gradients, weight, codes = case()
    expected = [written_out(x, d, weight, codes) for x, d in zip(inputs, gradients, strict=True)]
    torch.testing.assert_close(directional_products(inputs, gradients, weight, codes, 3), torch.stack(expected))


@pytest.mark.parametrize("at_once", [1, 60, 10_000])
def test_squares_of_single_weights_are_added_up(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "GRADIENTS_AT_ONCE", at_once)
    inputs, gradients, weight, codes = case()
    expected = [written_out(x, d, weight, codes, 2) for x, d in zip(inputs, gradients, strict=True)]
    found = directional_products(inputs, gradients, weight, codes, 3, apart=True)
    torch.testing.assert_close(found, torch.stack(expected))


def test_squares_of_small_weights_in_half_precision_are_not_lost() -> None:
    inputs, gradients, weight, codes = case()
    half = (2e-4 * weight).half()
    expected = [
        written_out(x.half().float(), d.half().float(), half.float(), codes, 2)
        for x, d in zip(inputs, gradients, strict=True)
    ]
    found = directional_products(inputs.half(), gradients.half(), half, codes, 3, apart=True)
    torch.testing.assert_close(found, torch.stack(expected).double(), rtol=5e-3, atol=0)


@pytest.mark.parametrize("costs", [0, 8, 10**6])
@pytest.mark.parametrize(
    "sequences", [[0, 0, 0, 0, 0, 0], [0, 0, 2, 2, 2, 3], [1, 1, 1, 1, 1, 3], [3, 3, 3, 3, 3, 3], []]
)
def test_products_of_routed_tokens_go_to_their_sequences(
    sequences: list[int], costs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By gradients of weights, and by tokens, whichever is cheaper."""
    monkeypatch.setattr(products, "GRADIENT_COSTS", costs)
    _, _, weight, codes = case()
    sentence_ids = torch.tensor(sequences, dtype=torch.int64)
    inputs, gradients = random(len(sentence_ids), 7, seed=5), random(len(sentence_ids), 5, seed=6)
    found = routed_products(inputs, gradients, sentence_ids, 4, weight, codes, 3)
    own = [(inputs[sentence_ids == b], gradients[sentence_ids == b]) for b in range(4)]
    torch.testing.assert_close(found, torch.stack([written_out(*each, weight, codes) for each in own]))
    apart = routed_products(inputs, gradients, sentence_ids, 4, weight, codes, 3, apart=True)
    torch.testing.assert_close(apart, torch.stack([written_out(*each, weight, codes, 2) for each in own]))


@pytest.mark.parametrize("criterion", [Wanda(), MWanda(), Magnitude(), Magnitude("row")], ids=repr)
def test_what_is_removed_at_a_level_is_what_a_run_removes_at_that_sparsity(criterion: Criterion) -> None:
    model = PlainDecoder()
    model.layers[0].up.weight.data[:, :2] = 0
    model.layers[1].down.weight.data[2] = 0
    inputs = capture(model, [matrix.name for matrix in matrices_of(model)], CALIBRATION)
    codes = {
        matrix.name: removal_levels(
            matrix.weight, statistics_of(inputs[matrix.name]), criterion, Unstructured(), LEVELS
        )
        for matrix in matrices_of(model)
    }
    for level, sparsity in enumerate(LEVELS):
        if sparsity < 0.4:  # zeros that were there change the targets of the other matrices of their block
            continue
        pruned = PlainDecoder()
        pruned.load_state_dict(model.state_dict())
        prune_plain(pruned, sparsity, "oneshot", criterion)
        for dense, matrix in zip(matrices_of(model), matrices_of(pruned), strict=True):
            gone = (codes[matrix.name] <= level) & (dense.weight != 0)
            assert torch.equal(gone, (matrix.weight == 0) & (dense.weight != 0)), matrix.name


def test_what_is_removed_at_one_level_is_removed_at_the_next() -> None:
    codes = removal_levels(random(6, 20), None, Magnitude(), Unstructured(), LEVELS)
    assert [int((codes <= level).sum()) for level in range(3)] == [30, 60, 96]
    assert codes.dtype == torch.uint8


def test_a_pattern_of_groups_has_one_level() -> None:
    codes = removal_levels(random(4, 8), None, Magnitude("row"), NOfM(2, 4), (0.5,))
    assert (codes == 0).view(4, 2, 4).sum(dim=2).eq(2).all()


def statistics_of(inputs: list[Tensor]) -> LanguageStatistics:
    statistics = LanguageStatistics.zeros(len(inputs), inputs[0].shape[1], needs=Needs.COUNTS)
    for language, values in enumerate(inputs):
        statistics.add(SequenceSums.of(values[None]), torch.tensor([language]))
    return statistics
