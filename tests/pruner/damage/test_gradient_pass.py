"""The damage of a matrix against gradients of whole sequences by autograd, and against finite differences of the KL."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from plain_decoder import PlainBlock, PlainDecoder
from pruning_oracle import capture, lowest_of_rows, parameter_of, wanda, weight_of
from tiny_models import tiny_calibration, tiny_model
from torch import Tensor, nn

from mwanda.calibration import CalibrationSet
from mwanda.criteria.wanda import Wanda
from mwanda.errors import ConfigurationError
from mwanda.models import Block, blocks_of
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner.damage import Damage, Sample, measure_damage
from mwanda.pruner.damage.labels import draws_of
from mwanda.pruner.offloading import Activations
from mwanda.pruner.passes import Passes, PassSettings
from mwanda.pruner.runtime import Runtime
from mwanda.schedules.base import Information
from mwanda.statistics import LanguageWeights


CALIBRATION = tiny_calibration(languages=2, sequences=(2, 3), length=9)
SAMPLE = Sample((0.3, 0.7), 1.0, 0.5, 2, seed=5)
DENSE = ["llama", "bloom", "gpt2", "gemma2", "gemma3_text", "opt", "phi", "falcon", "cohere"]
MIXTURES = ["mixtral", "qwen2_moe", "qwen3_moe"]


def measure(
    model: nn.Module,
    calibration: CalibrationSet = CALIBRATION,
    sample: Sample = SAMPLE,
    batch_size: int = 2,
    expert_tokens: int = 0,
    activations: Activations = "device",
    runtime: Runtime | None = None,
) -> Damage:
    """Return the damage under Wanda's criterion."""
    passes = Passes.of(model, calibration, PassSettings(batch_size, expert_tokens, activations), runtime)
    return measure_damage(passes, Wanda(), Unstructured(), sample)


def float64(family: str, **more: Any) -> nn.Module:
    return PlainDecoder() if family == "plain" else tiny_model(family, dtype=torch.float64, **more)


def logits_of(model: nn.Module, tokens: Tensor) -> Tensor:
    output = model(input_ids=tokens, use_cache=False)
    logits: Tensor = getattr(output, "logits", output)
    return logits


def removed_parts(model: nn.Module, names: list[str], calibration: CalibrationSet, level: float) -> dict[str, Tensor]:
    """Return what Wanda would remove of each matrix, by whole inputs and sorts."""
    inputs = capture(model, names, calibration)
    parts = {}
    for name in names:
        weight = weight_of(model, name)
        parts[name] = weight * lowest_of_rows(wanda(weight, inputs[name]), level)
    return parts


def gradient_of(model: nn.Module, name: str, gradients: dict[str, Tensor]) -> Tensor:
    """Return the gradient of a matrix as out × in."""
    parameter = parameter_of(model, name)
    gradient = gradients[parameter]
    if gradient.dim() == 3:
        return gradient[int(name.rpartition(".")[2])]
    return gradient if isinstance(model.get_submodule(name), nn.Linear) else gradient.T


def gradients_of_draws(
    model: nn.Module, calibration: CalibrationSet, sample: Sample
) -> Iterator[tuple[int, int, dict[str, Tensor]]]:
    """Yield sequence, draw and the gradients of all matrices, by backward passes through the whole model."""
    names = [matrix.name for block in blocks_of(model) for matrix in block.matrices]
    tokens = torch.cat(calibration.sequences)
    draws = draws_of(len(tokens), calibration.length, sample.labels, sample.draws, sample.seed)
    wanted = {parameter_of(model, name) for name in names}
    parameters = {name: value for name, value in model.named_parameters() if name in wanted}
    for sequence, draw in [(b, r) for b in range(len(tokens)) for r in range(sample.draws)]:
        logits = logits_of(model, tokens[sequence : sequence + 1])[0, draws.positions[sequence]]
        log_p = logits.log_softmax(dim=1)
        up_to = log_p.detach().exp().cumsum(dim=1)
        pair = [torch.searchsorted(up_to, each[:, None], right=True) for each in draws.uniforms[draw, :, sequence]]
        objective = log_p.gather(1, pair[0]).sum() - log_p.gather(1, pair[1]).sum()
        values = torch.autograd.grad(objective, list(parameters.values()), allow_unused=True)
        gradients = {
            name: torch.zeros_like(parameters[name]) if value is None else value
            for name, value in zip(parameters, values, strict=True)
        }
        yield sequence, draw, {name: gradient_of(model, name, gradients) for name in names}


def by_autograd(model: nn.Module, calibration: CalibrationSet, sample: Sample) -> Tensor:
    """Return the squares sequence by sequence, from the gradients of all weights of the whole model."""
    names = [matrix.name for block in blocks_of(model) for matrix in block.matrices]
    parts = [removed_parts(model, names, calibration, level) for level in sample.levels]
    found = torch.zeros(calibration.count, sample.draws, len(names), len(sample.levels), dtype=torch.float64)
    for sequence, draw, gradients in gradients_of_draws(model, calibration, sample):
        for place, name in enumerate(names):
            for index, part in enumerate(parts):
                products = gradients[name] * part[name]
                apart = products.square().sum()
                found[sequence, draw, place, index] = apart if sample.information == "diagonal" else products.sum() ** 2
    return found


@pytest.mark.parametrize("information", get_args(Information))
@pytest.mark.parametrize("family", [*DENSE, *MIXTURES, "plain"])
def test_squares_are_those_of_the_gradients_of_whole_sequences(family: str, information: Information) -> None:
    model, sample = float64(family), replace(SAMPLE, information=information)
    found = measure(model, sample=sample)
    assert found.matrices == tuple(matrix.name for block in blocks_of(model) for matrix in block.matrices)
    expected = by_autograd(model, CALIBRATION, sample)
    assert float(expected.max()) > 1e-6
    torch.testing.assert_close(found.squares, expected, rtol=2e-4, atol=1e-6 * float(expected.max()))


def test_curves_are_the_mean_square_by_language() -> None:
    model = float64("llama")
    found, squares = measure(model), by_autograd(model, CALIBRATION, SAMPLE)
    positions = round(0.5 * 9)
    first = squares[:2].mean(dim=(0, 1)) / 4 / positions
    second = squares[2:].mean(dim=(0, 1)) / 4 / positions
    assert found.positions == positions
    for place, curve in enumerate(found.curves().values()):
        torch.testing.assert_close(curve, torch.stack([first[place], second[place]]), rtol=1e-4, atol=1e-12)


def kl(model: nn.Module, tokens: Tensor, block: Block, name: str, step: Tensor, size: float) -> float:
    """Return the KL divergence, in nats a token, that a small step of one matrix makes."""
    matrix = next(each for each in block.matrices if each.name == name)
    with torch.no_grad():
        dense = logits_of(model, tokens).double().log_softmax(dim=2)
        before = matrix.weight.clone()
        matrix.weight.sub_(size * step)
        moved = logits_of(model, tokens).double().log_softmax(dim=2)
        matrix.weight.copy_(before)
    return float((dense.exp() * (dense - moved)).sum(dim=2).mean())


@pytest.mark.parametrize("family", ["llama", "gemma2", "mixtral"])
def test_damage_is_the_second_order_of_the_kl_divergence(family: str) -> None:
    """`KL(ε) / ε²` for a small ε, against the mean over many draws: 4 standard errors."""
    model, calibration = float64(family), tiny_calibration(languages=1, sequences=4, length=6)
    draws = 100
    found = measure(model, calibration, Sample((0.5,), 1.0, 1.0, draws, 0, "directional"), batch_size=4)
    names = list(found.matrices)
    parts = removed_parts(model, names, calibration, 0.5)
    tokens, size, ratios = torch.cat(calibration.sequences), 1e-3, []
    for block in blocks_of(model):
        for matrix in block.matrices:
            expected = kl(model, tokens, block, matrix.name, parts[matrix.name], size) / size**2
            if float(parts[matrix.name].abs().sum()) > 0:
                ratios.append(float(found.curves()[matrix.name][0, 0]) / expected)
    spread = (2 / (4 * draws)) ** 0.5
    assert max(abs(ratio - 1) for ratio in ratios) < 4.5 * spread
    assert abs(sum(ratios) / len(ratios) - 1) < 2 * spread


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_weights_apart_are_the_diagonal_of_the_second_order(family: str) -> None:
    """The mean over many draws of `Σ_ij (g_ij Δ_ij)²` against KL divergences of steps of one weight each."""
    model, calibration = float64(family), tiny_calibration(languages=1, sequences=4, length=6)
    draws, size = 200, 1e-3
    found = measure(model, calibration, Sample((0.5,), 1.0, 1.0, draws, seed=0), batch_size=4)
    tokens = torch.cat(calibration.sequences)
    names = list(found.matrices)[:2]
    parts = removed_parts(model, names, calibration, 0.5)
    block = blocks_of(model)[0]
    for name in names:
        expected = 0.0
        for row, column in parts[name].nonzero().tolist():
            step = torch.zeros_like(parts[name])
            step[row, column] = parts[name][row, column]
            expected += kl(model, tokens, block, name, step, size) / size**2
        assert float(found.curves()[name][0, 0]) == pytest.approx(expected, rel=0.15), name


@pytest.mark.parametrize("information", get_args(Information))
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "mixtral", "qwen3_moe"])
def test_rows_share_the_damage_as_whole_gradients_say(family: str, information: Information) -> None:
    """Each language's sequences count once together, however many they are, times its weight."""
    model, weights = float64(family), (1.0, 3.0)
    calibration = replace(CALIBRATION, weights=LanguageWeights(weights))
    first, second = CALIBRATION.sequences
    thrice = replace(CALIBRATION, sequences=(first, second.repeat(3, 1)))
    sample = replace(SAMPLE, information=information, rows=True)
    found = measure(model, calibration, sample)
    parts = removed_parts(model, list(found.matrices), thrice, 0.7)
    languages, expected = found.languages.tolist(), {name: torch.zeros(len(part)) for name, part in parts.items()}
    for sequence, _, gradients in gradients_of_draws(model, calibration, sample):
        language = languages[sequence]
        for name, part in parts.items():
            damage = (gradients[name] * part).square().sum(dim=1)
            expected[name] = expected[name] + weights[language] / languages.count(language) * damage
    for name, rows in expected.items():
        torch.testing.assert_close(found.rows[name].double(), rows.double(), rtol=1e-4, atol=1e-9)


def test_rows_of_an_expert_that_saw_too_little_are_not_told() -> None:
    found = measure(float64("mixtral"), sample=replace(SAMPLE, rows=True), expert_tokens=10**6)
    assert found.rare
    assert not set(found.rows) & {name for name, _ in found.rare}
    assert found.rows
    assert not measure(float64("llama")).rows


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batches_change_nothing_beyond_rounding(batch_size: int) -> None:
    model = float64("llama")
    torch.testing.assert_close(measure(model, batch_size=batch_size).squares, measure(model).squares)


def test_the_same_seed_gives_the_same_numbers_twice_and_another_seed_others() -> None:
    model = tiny_model("llama")
    first, second = measure(model), measure(model)
    assert torch.equal(first.squares, second.squares)
    other = measure(model, sample=replace(SAMPLE, seed=6))
    assert not torch.allclose(first.squares, other.squares, rtol=0.1)


@pytest.mark.parametrize("family", ["llama", "mixtral", "bloom"])
def test_the_model_is_left_as_it_was(family: str) -> None:
    model = tiny_model(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wanted = {name: value.requires_grad for name, value in model.named_parameters()}
    forwards = {name: module.__dict__.get("forward") for name, module in model.named_modules()}
    measure(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {name: value.requires_grad for name, value in model.named_parameters()} == wanted
    assert {name: module.__dict__.get("forward") for name, module in model.named_modules()} == forwards
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(value.grad is None for value in model.parameters())


@pytest.mark.parametrize("activations", ["ram", "disk"])
def test_waiting_hidden_states_may_be_elsewhere(activations: Activations, tmp_path: Any) -> None:
    model = tiny_model("llama", num_hidden_layers=3)
    found = measure(model, activations=activations, runtime=Runtime(scratch=tmp_path))
    assert torch.equal(found.squares, measure(model).squares)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_half_precision_comes_near(family: str, dtype: torch.dtype) -> None:
    """Labels are drawn from slightly other predictions, so that only the mean over draws can be compared."""
    sample = Sample((0.5,), 1.0, 1.0, 40, seed=1)
    dense = measure(tiny_model(family), sample=sample, batch_size=8)
    half = measure(tiny_model(family, dtype=dtype), sample=sample, batch_size=8)
    whole, found = (sum(float(curve.sum()) for curve in each.curves().values()) for each in (dense, half))
    assert found == pytest.approx(whole, rel=0.35)


class MixedBlock(PlainBlock):
    """The first product in half precision, the second in full, as some families keep it."""

    def forward(self, states: Tensor) -> Tensor:
        inner = torch.relu(self.up(states.to(self.up.weight.dtype)))
        return states + self.down(inner.to(self.down.weight.dtype)).to(states.dtype)


def test_weights_of_mixed_precision_come_near() -> None:
    whole = PlainDecoder(make_block=MixedBlock)
    mixed = PlainDecoder(make_block=MixedBlock)
    for block in mixed.layers:
        block.up.bfloat16()
        block.down.float()
    sample = Sample((0.5,), 1.0, 1.0, 100, seed=1)
    found, expected = (measure(model, sample=sample, batch_size=8).curves() for model in (mixed, whole))
    assert list(found) == list(expected)
    for name, curve in found.items():
        torch.testing.assert_close(curve, expected[name], rtol=0.3, atol=0)


def test_experts_that_saw_few_tokens_share_the_damage_of_all() -> None:
    model = float64("mixtral")
    alone, shared = measure(model), measure(model, expert_tokens=10**6)
    curves = alone.curves()
    assert alone.rare == ()
    assert {name for name, _ in shared.rare} == {name for name in curves if ".experts." in name}
    for name, siblings in shared.rare:
        expected = torch.stack([shared.squares[:, :, shared.matrices.index(each)] for each in siblings])
        mean = expected[:, :2].mean(dim=(0, 1, 2)) / 4 / shared.positions
        torch.testing.assert_close(shared.curves()[name][0], mean)


@pytest.mark.parametrize("family", ["t5", "mbart", "xlm-roberta"])
def test_models_without_a_language_models_loss_are_refused(family: str) -> None:
    with pytest.raises(ConfigurationError, match=r"schedule=fisher.*predicts each token from those before it"):
        measure(tiny_model(family))
