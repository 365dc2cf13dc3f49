"""Everything that runs on a GPU runs on a device that is not there: the CPU's masks, no mix of devices, few waits."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_job
import torch
from interruption import Interrupted, StopAt
from pretend_device import DEVICE, DeviceMixError, Pretend, Waits, moved, pretend, values_of
from streamed_run import emptied
from tiny_models import HYBRIDS, SIZES, save_tiny_model, tiny_calibration, tiny_model, tiny_tokenizer
from torch import nn

from mwanda.calibration import CalibrationSet
from mwanda.criteria import Criterion
from mwanda.criteria.magnitude import Magnitude
from mwanda.criteria.mria import MRIA
from mwanda.criteria.mwanda import MWanda
from mwanda.criteria.ria import RIA
from mwanda.criteria.sparsegpt import SparseGPT
from mwanda.criteria.wanda import Wanda
from mwanda.evaluation import perplexity
from mwanda.evaluation.perplexity import LanguagePerplexity, Perplexity, tokens_at_once
from mwanda.inside.collector import Inside
from mwanda.models import blocks_of
from mwanda.models.source import LoadedModel, PretrainedModel
from mwanda.models.weights import Streamed, Weights, visit
from mwanda.patterns import Pattern
from mwanda.patterns.n_of_m import NOfM
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner, PruningReport, observe
from mwanda.pruner.engine import Order
from mwanda.pruner.offloading import Activations
from mwanda.pruner.run_checkpoint import RunCheckpoint
from mwanda.pruner.runtime import Runtime
from mwanda.schedules import Schedule
from mwanda.schedules.alphapruning import AlphaPruning
from mwanda.schedules.dlp import DLP
from mwanda.schedules.fisher import Fisher
from mwanda.schedules.owl_cwl import OWLCWL
from mwanda.schedules.uniform import Uniform
from mwanda.solvers import Solver
from mwanda.solvers.admm import ADMM
from mwanda.solvers.dsnot import DSnoT
from mwanda.solvers.swap import Swap
from mwanda.system.distributed import World


CALIBRATION = tiny_calibration(languages=3, sequences=4, length=12)
CRITERIA = [Wanda(), MWanda(probability_exponent=0.5), RIA(), MRIA(), Magnitude(), SparseGPT()]
PATTERNS = [Unstructured(), NOfM(2, 4)]
ORDERS: list[Order] = ["arrival", "block", "oneshot"]


def name_of(part: object) -> str:
    """Return the name of a test's part."""
    return type(part).__name__


every_order = pytest.mark.parametrize("order", ORDERS)


@pytest.fixture
def waits() -> Iterator[Waits]:
    """Have the device be there for a test."""
    with pretend() as found:
        yield found


def prune(
    model: nn.Module,
    pruner: Pruner,
    criterion: Criterion | None = None,
    pattern: Pattern | None = None,
    *,
    schedule: Schedule | None = None,
    solver: Solver | None = None,
    runtime: Runtime | None = None,
    calibration: CalibrationSet = CALIBRATION,
) -> PruningReport:
    """Prune half of a model in place."""
    chosen = criterion or Wanda(), schedule or Uniform(), pattern or Unstructured()
    return pruner.prune(model, calibration, *chosen, 0.5, runtime, solver)


def assert_same_masks(found: nn.Module, expected: nn.Module) -> None:
    """Compare the zeros of two models."""
    theirs, ours = values_of(expected), values_of(found)
    assert [name for name, value in theirs.items() if not (ours[name] == 0).equal(value == 0)] == []


def assert_digests_are_those_of_the_cpu(found: PruningReport, expected: PruningReport) -> None:
    assert [plan.mask for plan in found.plans] == [plan.mask for plan in expected.plans]
    assert all(plan.mask for plan in found.plans)


def test_a_mix_of_devices_and_numpy_are_refused_and_waits_are_written_down(waits: Waits) -> None:
    there, here = torch.ones(3, device=DEVICE), torch.ones(3)
    assert isinstance(there, Pretend)
    assert there.device == (there + 1).device == there[None].T.device == DEVICE
    with pytest.raises(DeviceMixError):
        there + here
    with pytest.raises(TypeError):
        there.numpy()
    assert isinstance(there * torch.tensor(2.0), Pretend)  # one number may be anywhere
    assert waits.total == 0
    asked = there.cpu(), there[0].item(), bool(there.any()), there.tolist(), there.nonzero(), there[there > 0]
    assert waits.total == len(asked)
    here.to(DEVICE)
    assert waits.total == len(asked) + 1
    here.to(DEVICE, non_blocking=True)
    assert waits.total == len(asked) + 1


@every_order
@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda each: each.name)
@pytest.mark.parametrize("criterion", CRITERIA, ids=name_of)
def test_every_criterion_and_pattern_finds_the_masks_of_the_cpu(
    criterion: Criterion, pattern: Pattern, order: Order, waits: Waits
) -> None:
    model = tiny_model("llama", dtype=torch.float64)
    there = moved(copy.deepcopy(model))
    expected = prune(model, Pruner(order, 4), criterion, pattern)
    found = prune(there, Pruner(order, 4), criterion, pattern)
    assert_same_masks(there, model)
    assert_digests_are_those_of_the_cpu(found, expected)


@pytest.mark.parametrize("family", [*SIZES, *HYBRIDS])
def test_every_family_finds_the_masks_of_the_cpu(family: str, waits: Waits) -> None:
    # XGLM makes a number of the dtype of its weights in the default one, where that of float64 overflows.
    model = tiny_model(family, dtype=torch.float32 if family == "xglm" else torch.float64)
    there = moved(copy.deepcopy(model))
    for each in (model, there):
        prune(each, Pruner("arrival", 4), MWanda(), schedule=OWLCWL())
    assert_same_masks(there, model)


@every_order
@pytest.mark.parametrize("family", ["qwen3_moe", "t5"])
def test_mixtures_and_encoder_decoders_find_the_masks_of_the_cpu(family: str, order: Order, waits: Waits) -> None:
    model = tiny_model(family, dtype=torch.float64)
    there = moved(copy.deepcopy(model))
    for each in (model, there):
        prune(each, Pruner(order, 4), MRIA(), NOfM(2, 4))
    assert_same_masks(there, model)


def test_experts_are_summed_one_by_one_where_a_device_cannot_sum_all(
    monkeypatch: pytest.MonkeyPatch, waits: Waits
) -> None:
    monkeypatch.setattr(observe, "agrees", lambda device: False)
    model = tiny_model("qwen3_moe", dtype=torch.float64)
    there = moved(copy.deepcopy(model))
    for each in (model, there):
        prune(each, Pruner("arrival", 4), MRIA())
    assert_same_masks(there, model)


@pytest.mark.parametrize("solver", [Swap(), DSnoT(), ADMM()], ids=name_of)
@pytest.mark.parametrize("schedule", [AlphaPruning(), DLP()], ids=name_of)
def test_solvers_and_schedules_find_the_masks_of_the_cpu(solver: Solver, schedule: Schedule, waits: Waits) -> None:
    model = tiny_model("llama", dtype=torch.float64)
    there = moved(copy.deepcopy(model))
    for each in (model, there):
        prune(each, Pruner("block", 4), schedule=schedule, solver=solver)
    assert_same_masks(there, model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("criterion", [Wanda(), Magnitude(), SparseGPT()], ids=name_of)
def test_half_precision_is_pruned_exactly(dtype: torch.dtype, criterion: Criterion, waits: Waits) -> None:
    report = prune(moved(tiny_model("llama", dtype=dtype)), Pruner("arrival", 4), criterion)
    assert all(plan.zeros == plan.planned for plan in report.plans)


@pytest.mark.parametrize("activations", ["ram", "disk"])
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_activations_may_wait_elsewhere(family: str, activations: Activations, tmp_path: Path, waits: Waits) -> None:
    model = tiny_model(family, dtype=torch.float64)
    there = moved(copy.deepcopy(model))
    prune(model, Pruner("block", 4))
    prune(there, Pruner("block", 4, activations=activations), runtime=Runtime(scratch=tmp_path))
    assert_same_masks(there, model)


@every_order
@pytest.mark.parametrize("family", ["llama", "t5", "mixtral"])
def test_a_run_is_taken_up_again_there_and_elsewhere(family: str, order: Order, tmp_path: Path, waits: Waits) -> None:
    """Also on another device than the one where it was interrupted: a checkpoint names none."""
    dense = tiny_model(family, dtype=torch.float64)
    expected = copy.deepcopy(dense)
    prune(expected, Pruner(order, 4))
    for number, (first, second) in enumerate([(True, True), (True, False), (False, True)]):
        for step in (1,):
            folder = tmp_path / f"{number}-{step}"

            def run(*, on_device: bool, stop: int | None = None, folder: Path = folder) -> nn.Module:
                model = copy.deepcopy(dense)
                model = moved(model) if on_device else model
                progress = StopAt(stop) if stop is not None else StopAt()
                prune(
                    model, Pruner(order, 4), runtime=Runtime(checkpoint=RunCheckpoint(folder, "key"), progress=progress)
                )
                return model

            with pytest.raises(Interrupted):
                run(on_device=first, stop=step)
            assert_same_masks(run(on_device=second), expected)


@every_order
def test_blocks_may_stay_on_disk(order: Order, tmp_path: Path, waits: Waits) -> None:
    expected = tiny_model("llama", dtype=torch.float64)
    there, stored = emptied(expected)
    moved(there)
    weights: Weights = Streamed(stored, tmp_path, DEVICE)
    prune(expected, Pruner(order, 4))
    prune(there, Pruner(order, 4), runtime=Runtime(weights=weights))
    masks = {name: value == 0 for name, value in values_of(expected).items()}
    for block in visit(weights, blocks_of(there)):
        for name, value in values_of(block.module).items():
            assert (value == 0).equal(masks[f"{block.name}.{name}"])


SENTENCES = {"eng_Latn": ["The river is high.", "Bread!"], "ell_Grek": ["Το ποτάμι ανέβηκε.", "Ψωμί!"]}


def measured(model: nn.Module, batch_tokens: int = 64) -> dict[str, LanguagePerplexity]:
    """Return the perplexity of a model in two languages."""
    settings, tokenizer = Perplexity(window=16, stride=8, batch_tokens=batch_tokens), tiny_tokenizer()
    return settings.measure(model, tokenizer, settings.texts(tokenizer, SENTENCES))  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["llama", "mixtral", "gemma2", "bloom"])
def test_perplexity_is_that_of_the_cpu(family: str, waits: Waits) -> None:
    model = tiny_model(family)
    expected = measured(model)
    found = measured(moved(model))
    for code, each in expected.items():
        assert found[code].perplexity == pytest.approx(each.perplexity, rel=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2", "mistral", "bloom"])
def test_an_evaluation_waits_once_a_batch(family: str, waits: Waits) -> None:
    """For the losses."""
    model, counts = moved(tiny_model(family)), []
    for copies in (1, 5):
        settings, tokenizer = Perplexity(window=16, stride=16, batch_tokens=64), tiny_tokenizer()
        texts = settings.texts(tokenizer, {code: lines * copies for code, lines in SENTENCES.items()})
        before = waits.total
        settings.measure(model, tokenizer, texts)  # type: ignore[arg-type]
        counts.append((waits.total - before, len(settings.batches(tokenizer, texts))))
    (few, batches), (many, more) = counts
    assert many - few <= more - batches, waits.lines


def test_losses_that_overflow_are_made_again(waits: Waits) -> None:
    model = tiny_model("llama")
    model.get_output_embeddings().weight.data *= 60
    expected, found = measured(model), measured(moved(model))
    for code, each in expected.items():
        assert found[code].losses.nats == pytest.approx(each.losses.nats, rel=1e-4)


def test_as_many_tokens_pass_together_as_suit_the_device(waits: Waits, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    assert tokens_at_once(model, World()) == 1024
    moved(model)
    for free, expected in [(1 << 20, 1024), (1 << 26, 18 * 1024), (1 << 40, 32 * 1024)]:
        monkeypatch.setattr(perplexity, "available_bytes", lambda device, free=free: free)
        assert tokens_at_once(model, World()) == expected


@pytest.mark.parametrize("family", ["llama", "qwen3_moe"])
def test_gradients_give_the_masks_of_the_cpu(family: str, waits: Waits) -> None:
    model = tiny_model(family, dtype=torch.float64)
    there = moved(copy.deepcopy(model))
    for each in (model, there):
        prune(each, Pruner("arrival", 4), schedule=Fisher(labels=1.0))
    assert_same_masks(there, model)


@pytest.mark.parametrize("more", [("schedule=fisher",), ("method=recommended_with_updates",)], ids=str)
def test_a_whole_job_finds_the_masks_of_the_cpu(
    more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that `python run.py` does but to load straight to the device, as no loader knows this one."""
    folder, load = save_tiny_model("llama", tmp_path / "model"), PretrainedModel.load
    loaded: list[LoadedModel] = []

    def load_there(source: PretrainedModel, scratch: Path | None = None) -> LoadedModel:
        found = load(source, scratch)
        if loaded:
            moved(found.model)
            found.device = DEVICE
        loaded.append(found)
        return found

    monkeypatch.setattr(PretrainedModel, "load", load_there)
    here = tiny_job.run(folder, tmp_path / "here", *more)
    with pretend():
        there = tiny_job.run(folder, tmp_path / "there", *more)
    assert isinstance(next(loaded[1].model.parameters()), Pretend)
    assert_same_masks(loaded[1].model, loaded[0].model)
    for which in ("dense", "pruned"):
        expected = {code: each["perplexity"] for code, each in here["perplexity"][which].items()}
        found = {code: each["perplexity"] for code, each in there["perplexity"][which].items()}
        assert found == pytest.approx(expected, rel=1e-5)


def test_what_is_inside_is_that_of_the_cpu(waits: Waits) -> None:
    model = tiny_model("llama", dtype=torch.float64)
    tables = []
    for each in (copy.deepcopy(model), moved(copy.deepcopy(model))):
        settings = Inside(tokens=8, rows=1000, neuron_share=0.2, neuron_quantile=0.8, batch_size=3)
        observation = settings.observe(each, CALIBRATION, Wanda(), Unstructured(), 0.5)
        prune(each, Pruner(batch_size=4))
        tables.append(observation.finish())
    here, there = tables
    for ours, theirs in zip(there.energy, here.energy, strict=True):
        torch.testing.assert_close(ours.energy_lost, theirs.energy_lost, rtol=1e-5, atol=1e-9)
        torch.testing.assert_close(ours.drift, theirs.drift, rtol=1e-5, atol=1e-9)
    for name in ("correlations", "overlaps"):
        for ours, theirs in zip(getattr(there, name), getattr(here, name), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
