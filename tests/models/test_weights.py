"""Blocks that stay on disk give what a model in memory gives."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from interruption import Interrupted, Job, StopAt, assert_same, killed_at
from plain_decoder import PlainDecoder
from pruning_oracle import every_order
from streamed_run import CPU, Stored, emptied, in_memory, run_streamed
from tiny_models import tiny_calibration, tiny_model
from torch import Tensor, nn

from mwanda.criteria import Criterion
from mwanda.criteria.magnitude import Magnitude
from mwanda.criteria.mwanda import MWanda
from mwanda.criteria.sparsegpt import SparseGPT
from mwanda.criteria.wanda import Wanda
from mwanda.models import Block, blocks_of
from mwanda.models.weights import Resident, Streamed, visit
from mwanda.pruner import Pruner
from mwanda.pruner.engine import Order
from mwanda.schedules import Schedule
from mwanda.schedules.alphapruning import AlphaPruning
from mwanda.schedules.fisher import Fisher
from mwanda.schedules.lsa import LSA
from mwanda.schedules.owl_cwl import OWLCWL
from mwanda.statistics import LanguageStatistics
from mwanda.system.files import write_tensors


CALIBRATION = tiny_calibration(languages=3, sequences=(2, 3, 2), length=8)


def llama_job(order: Order, criterion: Criterion | None = None, schedule: Schedule | None = None) -> Job:
    model = tiny_model("llama", num_hidden_layers=3)
    return Job(model, CALIBRATION, Pruner(order, 3), criterion or MWanda(), schedule or OWLCWL(2.0))


@every_order
@pytest.mark.parametrize("criterion", [MWanda(), SparseGPT(), Magnitude()], ids=["mwanda", "sparsegpt", "magnitude"])
def test_blocks_on_disk_are_pruned_as_those_in_memory(tmp_path: Path, order: Order, criterion: Criterion) -> None:
    job = llama_job(order, criterion)
    assert_same(run_streamed(job, tmp_path), job.run())


@every_order
@pytest.mark.parametrize("schedule", [Fisher(draws=2), AlphaPruning(), LSA(level="matrix")], ids=repr)
def test_schedules_see_blocks_on_disk_as_those_in_memory(tmp_path: Path, order: Order, schedule: Schedule) -> None:
    job = llama_job(order, schedule=schedule)
    assert_same(run_streamed(job, tmp_path), job.run())


@pytest.mark.parametrize("family", ["gpt2", "bloom", "mixtral"])
def test_gradients_pass_blocks_on_disk_of_every_kind(tmp_path: Path, family: str) -> None:
    job = Job(tiny_model(family), CALIBRATION, Pruner("block", 3, activations="disk"), Wanda(), Fisher())
    assert_same(run_streamed(job, tmp_path), job.run())


@every_order
@pytest.mark.parametrize("family", ["gpt2", "bloom", "mixtral", "t5", "m2m_100"])
def test_blocks_of_every_kind_are_pruned_as_those_in_memory(tmp_path: Path, order: Order, family: str) -> None:
    """Transposed matrices, experts, two stacks, tuples of outputs."""
    job = Job(tiny_model(family), CALIBRATION, Pruner(order, 3))
    assert_same(run_streamed(job, tmp_path), job.run())


@every_order
def test_half_precision_is_kept(tmp_path: Path, order: Order) -> None:
    job = Job(tiny_model("llama", dtype=torch.bfloat16), CALIBRATION, Pruner(order, 3), SparseGPT())
    found = run_streamed(job, tmp_path)
    assert {value.dtype for value in found[0].values()} == {torch.bfloat16}
    assert_same(found, job.run())


@every_order
def test_weights_outside_of_the_plan_are_as_before(tmp_path: Path, order: Order) -> None:
    job = llama_job(order)
    planned = {matrix.parameter_name for block in blocks_of(job.dense) for matrix in block.matrices}
    found, _ = run_streamed(job, tmp_path)
    before = job.dense.state_dict()
    assert {name for name, value in found.items() if not torch.equal(value, before[name])} == planned


@dataclass(frozen=True)
class Watching(Wanda):
    """Looks at which blocks are in memory whenever a matrix is scored."""

    look: Callable[[], object] = lambda: None

    def score(self, weight: Tensor, statistics: LanguageStatistics | None) -> Tensor:
        """Score as Wanda does."""
        self.look()
        return super().score(weight, statistics)


@every_order
@pytest.mark.parametrize("family", ["plain", "t5", "llama"])
def test_one_block_at_a_time_is_in_memory(tmp_path: Path, order: Order, family: str) -> None:
    model, stored = emptied(PlainDecoder() if family == "plain" else tiny_model(family))
    blocks, seen = blocks_of(model), []
    for block in blocks:
        for matrix in block.matrices:
            matrix.module.register_forward_pre_hook(
                lambda *_, index=block.index: seen.append((in_memory(model), {index}))
            )
    watching = Watching(look=lambda: seen.append((in_memory(model), in_memory(model))))
    schedule = Fisher() if family == "llama" else OWLCWL(2.0)
    job = Job(model, CALIBRATION, Pruner(order, 3), watching, schedule)
    job.run(model=model, weights=Streamed(stored, tmp_path, CPU))
    assert len(seen) > len(blocks)
    assert all(there == expected and len(there) == 1 for there, expected in seen)


@every_order
def test_dense_weights_are_not_changed_and_are_read_a_block_at_a_time(tmp_path: Path, order: Order) -> None:
    job = llama_job(order)
    model, stored = emptied(job.dense)
    before = {name: value.clone() for name, value in stored.tensors.items()}
    job.run(model=model, weights=Streamed(stored, tmp_path, CPU))
    assert all(torch.equal(value, before[name]) for name, value in stored.tensors.items())
    numbers = [name.split(".")[2] for name in stored.read]
    changes = sum(first != second for first, second in itertools.pairwise(numbers))
    # The zeros that are there, the dense pre-pass, the pruning; the audit reads what has been kept.
    assert changes == 3 * 3 - 1


@pytest.fixture
def model() -> nn.Module:
    return emptied(PlainDecoder())[0]


@pytest.fixture
def stored() -> Stored:
    return emptied(PlainDecoder())[1]


def values_of(block: Block) -> dict[str, Tensor]:
    return {f"{block.name}.{name}": value.clone() for name, value in block.module.state_dict().items()}


def test_what_is_not_kept_is_dense_again(tmp_path: Path, model: nn.Module, stored: Stored) -> None:
    weights, block = Streamed(stored, tmp_path, CPU), blocks_of(model)[1]
    weights.fetch(block)
    for parameter in block.module.parameters():
        parameter.data.zero_()
    weights.release(block)
    assert in_memory(model) == set()
    weights.fetch(block)
    assert all(torch.equal(value, stored.tensors[name]) for name, value in values_of(block).items())
    assert list(tmp_path.iterdir()) == []


def test_what_is_kept_comes_back_and_can_be_kept_again(tmp_path: Path, model: nn.Module, stored: Stored) -> None:
    weights, block = Streamed(stored, tmp_path / "folder", CPU), blocks_of(model)[1]
    for factor in (2, 4):
        weights.fetch(block)
        for parameter in block.module.parameters():
            parameter.data *= 2
        weights.keep(block)
        weights.release(block)
        weights.fetch(block)
        assert all(torch.equal(value, factor * stored.tensors[name]) for name, value in values_of(block).items())
        weights.release(block)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["block-00001.safetensors"]


def test_fetching_again_changes_nothing(tmp_path: Path, model: nn.Module, stored: Stored) -> None:
    weights, block = Streamed(stored, tmp_path, CPU), blocks_of(model)[0]
    weights.fetch(block)
    block.module.up.weight.data.fill_(7)
    weights.fetch(block)
    assert bool((block.module.up.weight == 7).all())


def test_weights_have_the_precision_of_the_model(tmp_path: Path, stored: Stored) -> None:
    model = emptied(PlainDecoder().to(torch.bfloat16))[0]
    block = blocks_of(model)[0]
    Streamed(stored, tmp_path, CPU).fetch(block)
    for name, value in values_of(block).items():
        assert torch.equal(value, stored.tensors[name].to(torch.bfloat16))
        assert not value.requires_grad


def test_visiting_brings_one_after_the_other(tmp_path: Path, model: nn.Module, stored: Stored) -> None:
    weights = Streamed(stored, tmp_path, CPU)
    assert [in_memory(model) for _ in visit(weights, blocks_of(model))] == [{0}, {1}, {2}]
    assert in_memory(model) == set()


def test_only_blocks_that_a_run_has_kept_are_taken_from_the_folder(
    tmp_path: Path, model: nn.Module, stored: Stored
) -> None:
    blocks = blocks_of(model)
    earlier, digests = Streamed(stored, tmp_path, CPU), []
    for block in blocks:
        earlier.fetch(block)
        block.module.up.weight.data.zero_()
        digests.append(earlier.keep(block))
        earlier.release(block)
    weights = Streamed(stored, tmp_path, CPU)
    assert [bool((block.module.up.weight == 0).all()) for block in visit(weights, blocks)] == [False] * 3
    weights.resume(blocks[:2], digests[:2])
    assert [bool((block.module.up.weight == 0).all()) for block in visit(weights, blocks)] == [True, True, False]


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder" / "file.safetensors"
    for operation in range(4):  # a place for it, writing, permissions, the new name
        assert killed_at(lambda: write_tensors(path, {"a": torch.ones(3)}), operation, monkeypatch)
        assert not path.exists()
    assert not killed_at(lambda: write_tensors(path, {"a": torch.ones(3)}), 4, monkeypatch)
    assert path.exists()


def test_an_error_while_writing_leaves_nothing(
    tmp_path: Path, model: nn.Module, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, block = Streamed(stored, tmp_path, CPU), blocks_of(model)[0]
    weights.fetch(block)

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space"):
        weights.keep(block)
    assert list(tmp_path.iterdir()) == []


@every_order
@pytest.mark.parametrize("criterion", [MWanda(), SparseGPT()], ids=["mwanda", "sparsegpt"])
def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path: Path, order: Order, criterion: Criterion) -> None:
    job = Job(PlainDecoder(), CALIBRATION, Pruner(order, 3), criterion, OWLCWL(2.0))
    expected, progress = job.run(), StopAt()
    run_streamed(job, tmp_path / "whole", progress=progress)
    for step in range(len(progress.steps)):
        blocks, checkpoint = tmp_path / f"blocks {step}", tmp_path / f"checkpoint {step}"
        with pytest.raises(Interrupted):
            run_streamed(job, blocks, checkpoint, StopAt(step))
        assert_same(run_streamed(job, blocks, checkpoint), expected)


@pytest.mark.parametrize("order", ["block", "oneshot"])
def test_a_kill_between_any_two_operations_on_files_changes_nothing(
    tmp_path: Path, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also between the file of a block and the checkpoint that says of it: pruned twice, its weights would differ."""
    job = Job(PlainDecoder(blocks=2), tiny_calibration(sequences=2, length=6), Pruner(order, 4), SparseGPT())
    expected, operation = job.run(), 0

    def run() -> object:
        return run_streamed(job, tmp_path / f"blocks {operation}", tmp_path / f"checkpoint {operation}")

    while killed_at(run, operation, monkeypatch):
        found, report = run_streamed(job, tmp_path / f"blocks {operation}", tmp_path / f"checkpoint {operation}")
        assert_same((found, report), expected)
        operation += 1
    assert operation > 15


@every_order
def test_a_checkpoint_holds_no_weights_when_blocks_are_on_disk(tmp_path: Path, order: Order) -> None:
    job = Job(PlainDecoder(), CALIBRATION, Pruner(order, 3), SparseGPT(), OWLCWL(2.0))
    run_streamed(job, tmp_path / "blocks", tmp_path / "checkpoint")
    assert len(list((tmp_path / "blocks").iterdir())) == 3
    assert not list((tmp_path / "checkpoint").glob("prune-*.safetensors"))


def test_a_resident_model_stays_where_it_is() -> None:
    model = PlainDecoder()
    before, weights = list(model.parameters()), Resident()
    weights.resume(blocks_of(model), [None] * 3)
    for block in visit(weights, blocks_of(model)):
        weights.keep(block)
    assert all(first is second for first, second in zip(before, model.parameters(), strict=True))
