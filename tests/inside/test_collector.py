"""What is found inside a tiny model equals what plain loops over its hidden states find."""

import copy
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from tiny_models import BLOCKS, SIZES, tiny_calibration, tiny_model
from torch import nn

from mwanda.calibration import CalibrationSet
from mwanda.criteria.magnitude import Magnitude
from mwanda.criteria.wanda import Wanda
from mwanda.inside.collector import Inside
from mwanda.inside.columns import COLUMNS
from mwanda.inside.tables import Findings
from mwanda.models import blocks_of
from mwanda.patterns.n_of_m import NOfM
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner
from mwanda.schedules.uniform import Uniform


TOKENS, SPARSITY = 8, 0.5
SETTINGS = Inside(tokens=TOKENS, rows=1000, neuron_share=0.2, neuron_quantile=0.8, batch_size=3)
Calls = dict[int, tuple[torch.Tensor, dict[str, Any], torch.Tensor]]


def look(model: nn.Module, calibration: CalibrationSet, settings: Inside = SETTINGS) -> Findings:
    observation = settings.observe(model, calibration, Wanda(), Unstructured(), SPARSITY)
    Pruner().prune(model, calibration, Wanda(), Uniform(), Unstructured(), SPARSITY)
    return observation.finish()


def calls(model: nn.Module, tokens: torch.Tensor) -> Calls:
    """Return what every block is called with and returns for one sequence."""
    found: Calls = {}

    def hook(index: int) -> Any:
        def remember(module: nn.Module, args: Any, kwargs: Any, output: torch.Tensor) -> None:
            found[index] = (args[0], kwargs, output)

        return remember

    hooks = [each.module.register_forward_hook(hook(each.index), with_kwargs=True) for each in blocks_of(model)]
    with torch.no_grad():
        model(input_ids=tokens[None], use_cache=False)
    for each in hooks:
        each.remove()
    return found


@pytest.fixture(scope="module")
def found() -> tuple[nn.Module, nn.Module, CalibrationSet, Findings]:
    """A dense and a pruned model, their text, and what was found."""
    pruned = tiny_model("llama", dtype=torch.float64)
    dense = copy.deepcopy(pruned)
    calibration = tiny_calibration(languages=3, sequences=[4, 2, 3])
    return dense, pruned, calibration, look(pruned, calibration)


@torch.no_grad()
def test_energy_and_drift_against_a_loop(found: Any) -> None:
    dense, pruned, calibration, findings = found
    for language, sequences in enumerate(calibration.sequences):
        before = calls(dense, sequences[0, :TOKENS])
        after = calls(pruned, sequences[0, :TOKENS])
        for index in range(BLOCKS):
            hidden, kwargs, output = before[index]
            again = blocks_of(pruned)[index].module(hidden, **kwargs)
            lost = sum(float((again[0, t] - output[0, t]).square().sum()) for t in range(1, TOKENS))
            whole = sum(float((output[0, t] - hidden[0, t]).square().sum()) for t in range(1, TOKENS))
            assert float(findings.energy[index].energy_lost[language]) == pytest.approx(lost / whole, rel=1e-5)
            error = float((after[index][2] - output)[0, 1:].square().sum() / output[0, 1:].square().sum())
            assert float(findings.energy[index].drift[language]) == pytest.approx(error, rel=1e-5)
    assert findings.energy[0].energy_lost.min() > 0.01


@torch.no_grad()
def test_profiles_masks_and_neurons_against_loops(found: Any) -> None:
    dense, _, calibration, findings = found
    languages = len(calibration.codes)
    inputs: dict[str, list[torch.Tensor]] = {}
    gates: list[list[torch.Tensor]] = [[] for _ in range(BLOCKS)]
    hooks = []
    for block in blocks_of(dense):
        for matrix in block.matrices:

            def see(module: nn.Module, args: Any, name: str = matrix.name) -> None:
                inputs.setdefault(name, []).append(args[0].flatten(0, 1))

            hooks.append(matrix.module.register_forward_pre_hook(see))

        def gate(module: nn.Module, args: Any, output: torch.Tensor, index: int = block.index) -> None:
            gates[index].append(output.flatten(0, 1))

        hooks.append(block.module.mlp.gate_proj.register_forward_hook(gate))
    for sequences in calibration.sequences:
        dense(input_ids=sequences, use_cache=False)
    for hook in hooks:
        hook.remove()

    for block in blocks_of(dense):
        for one, two in combinations(range(languages), 2):
            correlations, shared, either = [], 0, 0
            for matrix in block.matrices:
                sides = [inputs[matrix.name][language].square().mean(dim=0).sqrt() for language in (one, two)]
                correlations.append(spearmanr(*(side.numpy() for side in sides)).statistic)
                kept = [matrix.weight.abs() * side for side in sides]
                masks = [score > score.sort(dim=1).values[:, [matrix.shape[1] // 2 - 1]] for score in kept]
                shared += int((masks[0] & masks[1]).sum())
                either += int((masks[0] | masks[1]).sum())
            assert float(findings.correlations[block.index][one, two]) == pytest.approx(
                sum(correlations) / len(correlations), abs=1e-6
            )
            assert float(findings.overlaps[block.index][one, two]) == pytest.approx(shared / either)
    expected = torch.cat(
        [torch.stack([(part > 0).double().mean(dim=0) for part in of_block]) for of_block in gates], dim=1
    )
    assert torch.allclose(findings.probabilities.double(), expected)
    assert [place[2] for place in findings.places] == 2 * list(range(24))


def test_what_the_tables_hold(found: Any, tmp_path: Path) -> None:
    _, pruned, calibration, findings = found
    summary = findings.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.csv" for name in COLUMNS}
    tables = findings.tables()
    assert len(tables["energy"]) == BLOCKS * 3
    assert len(tables["profiles"]) == len(tables["masks"]) == BLOCKS * 3
    for name, rows in tables.items():
        assert all(tuple(row) == COLUMNS[name] for row in rows)
    assert (tmp_path / "energy.csv").read_text().splitlines()[0] == "layer,language,energy_lost,drift"
    # How many weights of a neuron went, counted in the pruned model itself.
    row = tables["neurons"][0]
    mlp = blocks_of(pruned)[row["layer"]].module.mlp
    weights = [mlp.gate_proj.weight[row["neuron"]], mlp.up_proj.weight[row["neuron"]]]
    weights.append(mlp.down_proj.weight[:, row["neuron"]])
    assert row["weights"] == sum(each.numel() for each in weights)
    assert row["zeros"] == sum(int((each == 0).sum()) for each in weights)
    assert row["zeros_before"] == 0
    assert summary["neurons"]["all"] == 48
    assert summary["neurons"]["specific"] == len({(each["layer"], each["neuron"]) for each in tables["neurons"]}) <= 9
    assert summary["neurons"]["weights_lost"] == pytest.approx(SPARSITY)
    for code in calibration.codes:
        mine = [each for each in tables["neurons"] if each["language"] == code]
        assert summary["per_language"][code]["neurons"] == len(mine)


def test_nothing_is_lost_where_nothing_is_pruned() -> None:
    model, calibration = tiny_model("gemma3_text"), tiny_calibration()
    findings = SETTINGS.observe(model, calibration, Wanda(), Unstructured(), SPARSITY).finish()
    assert all(float(each.energy_lost.max()) == float(each.drift.max()) == 0 for each in findings.energy)
    assert findings.summary()["neurons"]["weights_lost"] == 0


@pytest.mark.parametrize("family", SIZES)
def test_every_family_can_be_looked_into(family: str) -> None:
    model = tiny_model(family)
    findings = look(model, tiny_calibration(languages=2, sequences=2), Inside(tokens=6, rows=4, neuron_share=0.2))
    summary = findings.summary()
    assert all(layer["energy_lost"] > 0 for layer in summary["per_layer"])
    assert all(layer["drift"] > 0 for layer in summary["per_layer"])
    assert all(1 / 3 < layer["intersection_over_union"] <= 1 for layer in summary["per_layer"])
    assert all(-1 <= layer["rank_correlation"] <= 1 for layer in summary["per_layer"])
    assert summary["neurons"]["all"] > 0


def test_batches_do_not_matter() -> None:
    calibration = tiny_calibration(languages=3, sequences=[4, 2, 3])
    one, other = (
        look(tiny_model("bloom", dtype=torch.float64), calibration, Inside(tokens=20, rows=5, batch_size=size)).tables()
        for size in (1, 4)
    )
    for name in ("energy", "profiles", "masks"):
        for first, second in zip(one[name], other[name], strict=True):
            pairs = [pair for pair in zip(first.values(), second.values(), strict=True) if isinstance(pair[0], float)]
            assert pairs
            assert all(value == pytest.approx(again, rel=1e-6) for value, again in pairs)


def test_a_criterion_without_inputs_leaves_the_masks_of_languages_to_wanda() -> None:
    model, calibration = tiny_model("llama"), tiny_calibration()
    by_magnitude, by_wanda = (
        SETTINGS.observe(model, calibration, criterion, NOfM(2, 4), 0.5).finish()
        for criterion in (Magnitude(), Wanda())
    )
    assert by_magnitude.criterion == by_wanda.criterion == "wanda"
    assert all(torch.equal(*pair) for pair in zip(by_magnitude.overlaps, by_wanda.overlaps, strict=True))
    assert float(by_wanda.overlaps[0].min()) < 1


def test_one_language_has_nothing_to_be_compared_with() -> None:
    findings = look(tiny_model("llama"), tiny_calibration(languages=1))
    assert findings.tables()["masks"] == []
    layer = findings.summary()["per_layer"][0]
    assert (layer["rank_correlation"], layer["intersection_over_union"]) == (None, None)
    assert layer["energy_lost"] > 0
