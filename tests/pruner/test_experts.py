"""Statistics of the experts of a mixture, against routings made by hand."""

import copy
from collections.abc import Sequence

import pytest
import torch
from jaxtyping import Float, Int
from pruning_oracle import every_order
from tiny_models import EXPERTS, HIDDEN, tiny_calibration, tiny_model
from torch import Tensor, nn

from mwanda.calibration import Batch
from mwanda.criteria.wanda import Wanda
from mwanda.errors import CalibrationError
from mwanda.models import Matrix, blocks_of
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner
from mwanda.pruner.engine import Order
from mwanda.pruner.observe import Observer, pool_rare_experts
from mwanda.schedules.uniform import Uniform
from mwanda.statistics import LanguageStatistics, SequenceSums


every_mixture = pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])

# Three sequences of two tokens, of the languages 1, 0 and 1. Nobody is sent to expert 3, and only language 1 to 2.
LANGUAGES = [1, 0, 1]
CHOSEN = [[0, 1], [1, 0], [1, 0], [0, 1], [2, 0], [1, 2]]


def experts_of(family: str, dtype: torch.dtype = torch.float64) -> list[Matrix]:
    """Return the matrices of the experts of the last block."""
    matrices = blocks_of(tiny_model(family, dtype=dtype))[-1].matrices
    return [matrix for matrix in matrices if matrix.expert is not None]


def batch_of(languages: Sequence[int], length: int = 2) -> Batch:
    return Batch(torch.zeros(len(languages), length, dtype=torch.int64), torch.tensor(languages))


def hidden_states(tokens: int, dtype: torch.dtype = torch.float64) -> Float[Tensor, "N in"]:
    states = torch.randn(tokens, HIDDEN, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return states.to(dtype)


def even(chosen: Int[Tensor, "N k"], dtype: torch.dtype = torch.float64) -> Float[Tensor, "N k"]:
    """Return routing weights; what an expert multiplies does not depend on them."""
    return torch.full(chosen.shape, 1 / chosen.shape[1], dtype=dtype)


def expected_inputs(
    matrices: Sequence[Matrix], states: Tensor, chosen: Sequence[Sequence[int]], owners: Sequence[int]
) -> dict[str, dict[int, list[Tensor]]]:
    """Return what each matrix multiplies, token by token, for each language."""
    first = {matrix.expert: matrix for matrix in matrices if matrix.parameter == "gate_up_proj"}
    found: dict[str, dict[int, list[Tensor]]] = {matrix.name: {} for matrix in matrices}
    second = {matrix.expert: matrix for matrix in matrices if matrix.parameter == "down_proj"}
    for token, (experts, language) in enumerate(zip(chosen, owners, strict=True)):
        for expert in experts:
            gate, up = (first[expert].weight @ states[token]).chunk(2)
            found[first[expert].name].setdefault(language, []).append(states[token])
            found[second[expert].name].setdefault(language, []).append(nn.functional.silu(gate) * up)
    return found


def assert_statistics(
    found: dict[str, LanguageStatistics], expected: dict[str, dict[int, list[Tensor]]], languages: int
) -> None:
    assert found.keys() == expected.keys()
    for name, inputs in expected.items():
        for language in range(languages):
            values = torch.stack(inputs[language]) if language in inputs else None
            assert found[name].tokens[language] == (0 if values is None else len(values))
            squares = torch.zeros(found[name].sum_squares.shape[1]) if values is None else values.square().sum(dim=0)
            torch.testing.assert_close(found[name].sum_squares[language].float(), squares.float(), rtol=1e-5, atol=0)
            if values is not None and found[name].positive is not None:
                assert found[name].positive[language].tolist() == (values > 0).sum(dim=0).tolist()
                assert found[name].nonzero[language].tolist() == (values != 0).sum(dim=0).tolist()


@every_mixture
def test_each_expert_sees_the_tokens_that_are_sent_to_it(family: str) -> None:
    matrices, states, chosen = experts_of(family), hidden_states(6), torch.tensor(CHOSEN)
    observer = Observer(matrices, languages=3)
    observer.add_experts(matrices[0].module, (states, chosen, even(chosen)), batch_of(LANGUAGES))
    owners = [language for language in LANGUAGES for _ in range(2)]
    assert_statistics(observer.statistics, expected_inputs(matrices, states, CHOSEN, owners), languages=3)
    tokens = {matrix.expert: observer.statistics[matrix.name].tokens.tolist() for matrix in matrices}
    assert tokens == {0: [2, 3, 0], 1: [2, 3, 0], 2: [0, 2, 0], 3: [0, 0, 0]}


@every_mixture
def test_batches_add_up(family: str) -> None:
    matrices, states, chosen = experts_of(family), hidden_states(6), torch.tensor(CHOSEN)
    whole, parts = Observer(matrices, languages=2), Observer(matrices, languages=2)
    whole.add_experts(matrices[0].module, (states, chosen, even(chosen)), batch_of(LANGUAGES))
    for place in (2, 0, 1):
        part = slice(2 * place, 2 * place + 2)
        arguments = (states[part], chosen[part], even(chosen)[part])
        parts.add_experts(matrices[0].module, arguments, batch_of([LANGUAGES[place]]))
    for matrix in matrices:
        one, other = whole.statistics[matrix.name], parts.statistics[matrix.name]
        assert torch.equal(one.tokens, other.tokens)
        assert torch.equal(one.positive, other.positive)
        torch.testing.assert_close(one.sum_squares, other.sum_squares, rtol=1e-5, atol=0)


@every_mixture
def test_second_moments_of_experts_are_those_of_their_tokens(family: str) -> None:
    matrices, states, chosen = experts_of(family), hidden_states(6), torch.tensor(CHOSEN)
    observer = Observer(matrices, languages=2, needs="second_moments")
    observer.add_experts(matrices[0].module, (states, chosen, even(chosen)), batch_of(LANGUAGES))
    expected = expected_inputs(matrices, states, CHOSEN, [0] * 6)
    for matrix in matrices:
        moment = observer.statistics[matrix.name].second_moment
        if matrix.expert == 3:
            assert not moment.any()
        else:
            values = torch.stack(expected[matrix.name][0]).float()
            torch.testing.assert_close(moment, values.T @ values, rtol=1e-4, atol=1e-6)


@every_mixture
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_implementation_that_the_model_prefers_is_left_to_it(family: str, dtype: torch.dtype) -> None:
    """Also after an error, and without a change of what the experts return."""
    matrices, chosen = experts_of(family, dtype), torch.tensor(CHOSEN)
    module, arguments = matrices[0].module, (hidden_states(6, dtype), chosen, even(chosen, dtype))
    before, output = module.config._experts_implementation, module(*arguments)
    Observer(matrices, languages=2).add_experts(module, arguments, batch_of(LANGUAGES))
    assert module.config._experts_implementation == before
    assert torch.equal(module(*arguments), output)
    with pytest.raises(TypeError):
        Observer(matrices, languages=2).add_experts(module, (arguments[0], chosen, None), batch_of([0] * 3))
    assert module.config._experts_implementation == before


@every_mixture
def test_calls_that_do_not_route_are_an_error(family: str) -> None:
    matrices, states, chosen = experts_of(family), hidden_states(6), torch.tensor(CHOSEN)
    observer = Observer(matrices, languages=2)
    for arguments in ((states,), (states[:4], chosen[:4], even(chosen[:4])), (states, chosen[:, 0], even(chosen))):
        with pytest.raises(CalibrationError, match="is not called with hidden states and their routing"):
            observer.add_experts(matrices[0].module, arguments, batch_of(LANGUAGES))


@every_mixture
@torch.no_grad()
def test_experts_are_watched_within_their_model(family: str) -> None:
    """The router's own choice, language by language, on the whole model."""
    calibration = tiny_calibration(languages=3, sequences=(2, 3, 2), length=5)
    model = tiny_model(family, dtype=torch.float64)
    matrices = [matrix for matrix in blocks_of(model)[-1].matrices if matrix.expert is not None]
    calls: list[tuple[Tensor, ...]] = []
    handle = matrices[0].module.register_forward_pre_hook(lambda _, args: calls.append(args))
    model(input_ids=torch.cat(calibration.sequences), use_cache=False)
    handle.remove()
    observer = Observer(matrices, languages=3)
    with observer.watching():
        for batch in calibration.batches(2):
            with observer.reading(batch):
                model(input_ids=batch.tokens, use_cache=False)
        model(input_ids=calibration.sequences[0], use_cache=False)  # of no batch
    states, chosen, _ = calls[0]
    owners = [language for language, part in enumerate(calibration.sequences) for _ in range(part.numel())]
    assert_statistics(observer.statistics, expected_inputs(matrices, states, chosen.tolist(), owners), languages=3)


def statistics_with(tokens: Sequence[int], value: float) -> LanguageStatistics:
    """Return statistics of inputs that all have one value."""
    statistics = LanguageStatistics.zeros(len(tokens), 2)
    for language, count in enumerate(tokens):
        statistics.add(SequenceSums.of(torch.full((1, count, 2), value)), torch.tensor([language]))
    return statistics


def seen_by(matrices: Sequence[Matrix], tokens: Sequence[Sequence[int]]) -> dict[str, LanguageStatistics]:
    """Return statistics of the experts, which saw so many tokens of each language."""
    return {
        matrix.name: statistics_with(tokens[matrix.expert or 0], 1.0 if matrix.parameter == "gate_up_proj" else 2.0)
        for matrix in matrices
    }


TOKENS = [[9, 1], [0, 3], [4, 6], [0, 0]]


@every_mixture
@pytest.mark.parametrize(
    ("fewest", "rare"), [(0, []), (1, [3]), (3, [3]), (4, [1, 3]), (10, [1, 3]), (11, [0, 1, 2, 3])]
)
def test_an_expert_with_too_few_tokens_gets_the_statistics_of_all(
    family: str, fewest: int, rare: Sequence[int]
) -> None:
    matrices = experts_of(family)
    statistics = seen_by(matrices, TOKENS)
    before = copy.deepcopy(statistics)
    pooled = pool_rare_experts(statistics, matrices, fewest)
    assert sorted(pooled) == sorted(matrix.name for matrix in matrices if matrix.expert in rare)
    for matrix in matrices:
        found, own = statistics[matrix.name], before[matrix.name]
        square = 1.0 if matrix.parameter == "gate_up_proj" else 4.0
        assert found.tokens.tolist() == ([13, 10] if matrix.expert in rare else own.tokens.tolist())
        assert found.sum_squares.tolist() == [[count * square] * 2 for count in found.tokens.tolist()]
        assert found.positive.tolist() == [[count] * 2 for count in found.tokens.tolist()]


def test_two_layers_do_not_share() -> None:
    blocks = blocks_of(tiny_model("mixtral"))
    matrices = [matrix for block in blocks for matrix in block.matrices]
    experts = [matrix for matrix in matrices if matrix.expert is not None]
    counts = {matrix.name: TOKENS[matrix.expert or 0] if matrix.block else [50, 50] for matrix in experts}
    statistics = {name: statistics_with(tokens, 1.0) for name, tokens in counts.items()}
    pooled = pool_rare_experts(statistics, matrices, 4)
    assert sorted(pooled) == sorted(matrix.name for matrix in experts if matrix.block == 1 and matrix.expert in (1, 3))
    assert all(statistics[name].tokens.tolist() == [13, 10] for name in pooled)


def test_linear_layers_are_never_pooled() -> None:
    (block, *_) = blocks_of(tiny_model("llama"))
    statistics = {matrix.name: statistics_with([0, 1], 1.0) for matrix in block.matrices}
    assert pool_rare_experts(statistics, block.matrices, 100) == []
    assert all(each.tokens.tolist() == [0, 1] for each in statistics.values())


@every_order
@every_mixture
def test_an_expert_that_nobody_is_sent_to_is_pruned_like_its_neighbours(family: str, order: Order) -> None:
    """Without shared statistics that is an error: nothing is known of it."""
    calibration = tiny_calibration(languages=2, sequences=1, length=2)  # four tokens with two experts each
    mixtures = 2 if family == "mixtral" else 1
    shared = prune(family, order, calibration, expert_tokens=10**6)
    assert len(shared) == 2 * EXPERTS * mixtures
    assert prune(family, order, tiny_calibration(), expert_tokens=0) == []
    with pytest.raises(CalibrationError, match=r"no calibration token reached .*experts"):
        prune(family, order, tiny_calibration(languages=1, sequences=1, length=1), expert_tokens=0)


def prune(family: str, order: Order, calibration: object, expert_tokens: int) -> list[str]:
    """Return the matrices that shared statistics."""
    pruner = Pruner(order, 4, expert_tokens=expert_tokens)
    report = pruner.prune(tiny_model(family), calibration, Wanda(), Uniform(), Unstructured(), 0.5)  # type: ignore[arg-type]
    assert all(plan.zeros == plan.planned for plan in report.plans)
    return report.pooled
