"""The two steps in which the experts of a mixture run, and their statistics, against routings made by hand."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from jaxtyping import Float, Int
from pruning_oracle import every_order
from tiny_models import EXPERTS, HIDDEN, tiny_calibration, tiny_model
from torch import Tensor, nn

from mwanda.calibration import Batch
from mwanda.criteria.wanda import Wanda
from mwanda.errors import CalibrationError
from mwanda.models import Block, Matrix, blocks_of
from mwanda.models.family import EXPERT_PARAMETERS
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner
from mwanda.pruner.engine import Order
from mwanda.pruner.experts import in_two_steps, place_of
from mwanda.pruner.observe import Observer, pool_rare_experts
from mwanda.schedules.uniform import Uniform
from mwanda.statistics import LanguageStatistics, Needs, SequenceSums


every_mixture = pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])

# Three sequences of two tokens, of the languages 1, 0 and 1. Nobody is sent to expert 3, and only language 1 to 2.
LANGUAGES = [1, 0, 1]
CHOSEN = [[0, 1], [1, 0], [1, 0], [0, 1], [2, 0], [1, 2]]
CHOICES = 2


def mixture_of(family: str, dtype: torch.dtype = torch.float64) -> Block:
    """Return the last block, with the matrices of its experts alone."""
    block = blocks_of(tiny_model(family, dtype=dtype))[-1]
    return replace(block, matrices=tuple(matrix for matrix in block.matrices if matrix.expert is not None))


def experts_of(family: str) -> list[Matrix]:
    """Return the matrices of the experts of the last block."""
    return list(mixture_of(family).matrices)


def observe(observer: Observer, block: Block, states: Tensor, chosen: Tensor, batch: Batch) -> None:
    """Have the observer watch the experts of a block while they run."""
    with in_two_steps([block]), observer.watching(), observer.reading(batch):
        block.matrices[0].module(states, chosen, even(chosen, states.dtype))


def batch_of(languages: Sequence[int], length: int = 2) -> Batch:
    return Batch(torch.zeros(len(languages), length, dtype=torch.int64), torch.tensor(languages))


def hidden_states(tokens: int, dtype: torch.dtype = torch.float64) -> Float[Tensor, "N in"]:
    states = torch.randn(tokens, HIDDEN, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return states.to(dtype)


def even(chosen: Int[Tensor, "N k"], dtype: torch.dtype = torch.float64) -> Float[Tensor, "N k"]:
    """Return routing weights; what an expert multiplies does not depend on them."""
    return torch.full(chosen.shape, 1 / chosen.shape[1], dtype=dtype)


def expected_inputs(
    matrices: Sequence[Matrix], states: Tensor, chosen: Sequence[Sequence[int]], language_ids: Sequence[int]
) -> dict[str, dict[int, list[Tensor]]]:
    """Return what each matrix multiplies, token by token, for each language."""
    first = {matrix.expert: matrix for matrix in matrices if matrix.parameter == "gate_up_proj"}
    found: dict[str, dict[int, list[Tensor]]] = {matrix.name: {} for matrix in matrices}
    second = {matrix.expert: matrix for matrix in matrices if matrix.parameter == "down_proj"}
    for token, (experts, language) in enumerate(zip(chosen, language_ids, strict=True)):
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
@torch.no_grad()
def test_each_expert_sees_the_tokens_that_are_sent_to_it(family: str) -> None:
    block, states, chosen = mixture_of(family), hidden_states(6), torch.tensor(CHOSEN)
    matrices, observer = block.matrices, Observer(block.matrices, languages=3)
    observe(observer, block, states, chosen, batch_of(LANGUAGES))
    language_ids = [language for language in LANGUAGES for _ in range(2)]
    assert_statistics(observer.statistics, expected_inputs(matrices, states, CHOSEN, language_ids), languages=3)
    tokens = {matrix.expert: observer.statistics[matrix.name].tokens.tolist() for matrix in matrices}
    assert tokens == {0: [2, 3, 0], 1: [2, 3, 0], 2: [0, 2, 0], 3: [0, 0, 0]}


@every_mixture
@torch.no_grad()
def test_batches_add_up(family: str) -> None:
    block, states, chosen = mixture_of(family), hidden_states(6), torch.tensor(CHOSEN)
    whole, parts = Observer(block.matrices, languages=2), Observer(block.matrices, languages=2)
    observe(whole, block, states, chosen, batch_of(LANGUAGES))
    for place in (2, 0, 1):
        part = slice(2 * place, 2 * place + 2)
        observe(parts, block, states[part], chosen[part], batch_of([LANGUAGES[place]]))
    for matrix in block.matrices:
        one, other = whole.statistics[matrix.name], parts.statistics[matrix.name]
        assert torch.equal(one.tokens, other.tokens)
        assert torch.equal(one.positive, other.positive)
        torch.testing.assert_close(one.sum_squares, other.sum_squares, rtol=1e-5, atol=0)


@every_mixture
@torch.no_grad()
def test_second_moments_of_experts_are_those_of_their_tokens(family: str) -> None:
    block, states, chosen = mixture_of(family), hidden_states(6), torch.tensor(CHOSEN)
    observer = Observer(block.matrices, languages=2, needs=Needs.SECOND_MOMENTS)
    observe(observer, block, states, chosen, batch_of(LANGUAGES))
    expected = expected_inputs(block.matrices, states, CHOSEN, [0] * 6)
    for matrix in block.matrices:
        moment = observer.statistics[matrix.name].second_moment
        if matrix.expert == 3:
            assert not moment.any()
        else:
            values = torch.stack(expected[matrix.name][0]).float()
            torch.testing.assert_close(moment, values.T @ values, rtol=1e-4, atol=1e-6)


@every_mixture
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_the_two_steps_return_what_the_model_s_own_implementation_does(family: str, dtype: torch.dtype) -> None:
    """With uneven routing weights, in float32 also for a bfloat16 model, as routers make them."""
    block, chosen = mixture_of(family, dtype), torch.tensor(CHOSEN)
    weights = torch.rand(chosen.shape, generator=torch.Generator().manual_seed(1))
    module, arguments = block.matrices[0].module, (hidden_states(6, dtype), chosen, weights)
    own = {}
    for name in ("eager", "grouped_mm"):
        module.config._experts_implementation = name
        own[name] = module(*arguments)
    with in_two_steps([block]):
        output = module(*arguments)
    assert output.dtype == dtype
    assert bool(output.any())
    torch.testing.assert_close(output, own["grouped_mm"])
    # Eager rounds to bfloat16 after each expert.
    torch.testing.assert_close(output, own["eager"], **({} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}))


@every_mixture
def test_the_implementation_that_the_model_prefers_is_left_to_it(family: str) -> None:
    block = mixture_of(family, torch.float32)
    config: Any = block.matrices[0].module.config
    before = config._experts_implementation
    with pytest.raises(ZeroDivisionError), in_two_steps([block]):
        assert config._experts_implementation != before
        raise ZeroDivisionError
    assert config._experts_implementation == before


@every_mixture
def test_calls_that_do_not_route_the_batch_s_tokens_are_an_error(family: str) -> None:
    block, states, chosen = mixture_of(family), hidden_states(6), torch.tensor(CHOSEN)
    observer, module = Observer(block.matrices, languages=2), block.matrices[0].module
    with pytest.raises(CalibrationError, match=r"experts got choices \(4, 2\) for 6 tokens"):
        observe(observer, block, states[:4], chosen[:4], batch_of(LANGUAGES))
    with pytest.raises(CalibrationError, match=r"experts got choices \(6,\) for 6 tokens"):
        observer.add(module, (states, chosen[:, 0], even(chosen)), batch_of(LANGUAGES))
    with pytest.raises(CalibrationError, match="is not called with hidden states and their routing"):
        observer.add(module, (states,), batch_of(LANGUAGES))


@every_mixture
def test_no_hook_is_left_between_the_products(family: str) -> None:
    block = mixture_of(family)
    places = {place_of(matrix) for matrix in block.matrices}
    assert len(places) == 2
    observer = Observer(block.matrices, languages=2)
    with pytest.raises(ZeroDivisionError), observer.watching():
        assert all(place._forward_pre_hooks for place in places)
        raise ZeroDivisionError
    assert not any(place._forward_pre_hooks for place in places)


@every_order
@every_mixture
def test_a_token_is_multiplied_by_its_experts_once_a_pass(
    family: str, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under `block` it is twice: dense, and pruned."""
    model, calibration = tiny_model(family), tiny_calibration()
    rows = {name: 0 for name in EXPERT_PARAMETERS}
    sizes = {
        matrix.parameter: matrix.shape
        for block in blocks_of(model)
        for matrix in block.matrices
        if matrix.expert is not None
    }
    plain = nn.functional.linear

    def counted(inputs: Tensor, weight: Tensor, *bias: Tensor) -> Tensor:
        for name, shape in sizes.items():
            rows[name] += inputs.shape[0] if tuple(weight.shape) == shape else 0
        return plain(inputs, weight, *bias)

    monkeypatch.setattr("mwanda.pruner.experts.linear", counted)
    Pruner(order, 4).prune(model, calibration, Wanda(), Uniform(), Unstructured(), 0.5)
    mixtures = 2 if family == "mixtral" else 1
    tokens = calibration.count * calibration.length
    passes = 2 if order == "block" else 1
    assert rows == dict.fromkeys(EXPERT_PARAMETERS, passes * mixtures * CHOICES * tokens)


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
    with in_two_steps(blocks_of(model)), observer.watching():
        for batch in calibration.batches(2):
            with observer.reading(batch):
                model(input_ids=batch.tokens, use_cache=False)
        model(input_ids=calibration.sequences[0], use_cache=False)  # of no batch
    states, chosen, _ = calls[0]
    language_ids = [language for language, part in enumerate(calibration.sequences) for _ in range(part.numel())]
    assert_statistics(
        observer.statistics, expected_inputs(matrices, states, chosen.tolist(), language_ids), languages=3
    )


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
