"""Hidden states that wait elsewhere change nothing but memory."""

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args
from weakref import ref

import pytest
import torch
from interruption import Interrupted, Job, StopAt, assert_same
from plain_decoder import CALIBRATION, PlainBlock, PlainDecoder
from tiny_models import tiny_model
from torch import Tensor, nn

from mwanda.criteria import Criterion
from mwanda.criteria.mwanda import MWanda
from mwanda.criteria.sparsegpt import SparseGPT
from mwanda.errors import ConfigurationError
from mwanda.models import blocks_of
from mwanda.models.weights import Streamed
from mwanda.pruner import Pruner
from mwanda.pruner.engine import Order
from mwanda.pruner.offloading import ActivationOffloading, Activations, InMemory, OnDisk, offloading_of
from mwanda.schedules.owl_cwl import OWLCWL


every_order_that_parks = pytest.mark.parametrize("order", ["block", "oneshot"])
elsewhere = pytest.mark.parametrize("activations", ["ram", "disk"])


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go; after every test nothing is left there."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def job_of(model: nn.Module, order: Order, activations: Activations, criterion: Criterion | None = None) -> Job:
    pruner = Pruner(order, 3, activations=activations)
    return Job(model, CALIBRATION, pruner, criterion or MWanda(), OWLCWL(2.0))


@every_order_that_parks
@elsewhere
@pytest.mark.parametrize("family", ["bloom", "gpt2", "mixtral", "t5", "m2m_100"])
def test_masks_do_not_depend_on_where_hidden_states_wait(family: str, order: Order, activations: Activations) -> None:
    model = tiny_model(family)
    assert_same(job_of(model, order, activations).run(), job_of(model, order, "device").run())


@every_order_that_parks
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_every_precision_waits_to_the_bit(order: Order, dtype: torch.dtype) -> None:
    model = tiny_model("llama", dtype=dtype)
    expected = job_of(model, order, "device", SparseGPT()).run()
    assert_same(job_of(model, order, "disk", SparseGPT()).run(), expected)


@elsewhere
def test_the_order_of_arrival_refuses_to_park(activations: Activations) -> None:
    with pytest.raises(ConfigurationError, match=r"use pruner\.order=block or oneshot") as error:
        Pruner("arrival", activations=activations)
    assert "device" in str(error.value)


def test_an_interrupted_run_leaves_no_temporary_file(temporary: Path) -> None:
    seen = []
    stop = StopAt(4, watch=lambda: seen.append(len(list(temporary.rglob("*.safetensors")))))
    with pytest.raises(Interrupted):
        job_of(PlainDecoder(), "block", "disk").run(progress=stop)
    assert max(seen) == 3  # one file a batch


@every_order_that_parks
@elsewhere
def test_a_checkpoint_takes_what_is_offloaded(tmp_path: Path, order: Order, activations: Activations) -> None:
    job = job_of(PlainDecoder(), order, activations, SparseGPT())
    expected, progress = job_of(PlainDecoder(), order, "device", SparseGPT()).run(), StopAt()
    assert_same(job.run(tmp_path / "whole", progress), expected)
    for step in range(len(progress.steps)):
        with pytest.raises(Interrupted):
            job.run(tmp_path / str(step), StopAt(step))
        assert_same(job.run(tmp_path / str(step)), expected)


@pytest.mark.parametrize("family", ["gpt2", "t5", "m2m_100"])
def test_a_checkpoint_takes_tuples_and_two_stacks_that_are_offloaded(tmp_path: Path, family: str) -> None:
    job, expected = job_of(tiny_model(family), "block", "disk"), job_of(tiny_model(family), "block", "device").run()
    with pytest.raises(Interrupted):
        job.run(tmp_path, StopAt(3))
    assert_same(job.run(tmp_path), expected)


@every_order_that_parks
def test_blocks_and_hidden_states_may_both_wait_on_disk(tmp_path: Path, order: Order) -> None:
    job, model, stored = job_of(PlainDecoder(), order, "disk"), PlainDecoder(), {}
    for layer in model.layers:
        layer.to("meta")
    for name, value in PlainDecoder().layers.state_dict().items():
        stored[f"layers.{name}"] = value
    _, report = job.run(tmp_path / "checkpoint", model=model, weights=Streamed(stored, tmp_path, torch.device("cpu")))
    _, expected = job_of(PlainDecoder(), order, "device").run()
    assert report.plans == expected.plans


@dataclass
class Watched(OnDisk):
    """Notes what waits."""

    folder: Path
    held: dict[int, list[Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(self.folder)

    def offload(self, index: int, tensors: list[Tensor]) -> None:
        """Look at the tensors after they have been offloaded."""
        assert tensors
        assert all(tensor.numel() > 0 for tensor in tensors)
        super().offload(index, tensors)
        assert all(tensor.numel() == 0 and tensor.untyped_storage().nbytes() == 0 for tensor in tensors)
        self.held[index] = tensors

    def fetch(self, index: int) -> None:
        """Look at the tensors after they have been filled."""
        super().fetch(index)
        assert all(tensor.dim() == 3 and tensor.numel() > 0 for tensor in self.held.pop(index))


@every_order_that_parks
@pytest.mark.parametrize("family", ["llama", "m2m_100"])
def test_tensors_of_batches_that_wait_are_empty_and_one_batch_moves(
    tmp_path: Path, order: Order, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offloading = Watched(tmp_path)

    @contextmanager
    def watched(_: Activations, folder: Path | None) -> Iterator[Watched]:
        yield offloading
        assert offloading.held == {}

    monkeypatch.setattr("mwanda.pruner.passes.offloading_of", watched)
    model, waiting = tiny_model(family), []

    def look(*_: object) -> None:
        waiting.append(len(offloading.held))
        assert all(tensor.numel() == 0 for tensors in offloading.held.values() for tensor in tensors)

    for matrix in [matrix for block in blocks_of(model) for matrix in block.matrices]:
        matrix.module.register_forward_hook(look)
    job_of(model, order, "disk").run(model=model)
    assert max(waiting) == 2  # of three batches


@pytest.mark.parametrize("activations", get_args(Activations))
@pytest.mark.parametrize("checkpoint", [False, True])
def test_what_a_batch_ends_in_does_not_stay(tmp_path: Path, activations: Activations, checkpoint: bool) -> None:
    """Else the last hidden states of all batches would be on the device at once."""
    model, last, still_there = PlainDecoder(), [], []

    def look(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        still_there.append(sum(each() is not None for each in last))
        last.extend([ref(args[0]), ref(output)])

    model.head.register_forward_hook(look)
    job_of(model, "block", activations).run(tmp_path / "checkpoint" if checkpoint else None, model=model)
    assert len(still_there) > 3  # the dense pre-pass, and three batches that are pruned for
    assert max(still_there) == 0


class TwiceBlock(PlainBlock):
    """Is given the same states twice, and a view of them."""

    def forward(self, states: Tensor, again: Tensor | None = None) -> Tensor:
        """Add both."""
        return super().forward(states) + (states if again is None else again)


class TwiceDecoder(PlainDecoder):
    """Gives its blocks the same states twice."""

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Tensor:
        """Return the logits."""
        states = self.embed(input_ids)
        for layer in self.layers:
            states = layer(states, again=states)
        logits: Tensor = self.head(states)
        return logits


@every_order_that_parks
@elsewhere
def test_states_that_a_block_is_given_twice_are_offloaded_once(order: Order, activations: Activations) -> None:
    model = TwiceDecoder(make_block=TwiceBlock)
    assert_same(job_of(model, order, activations).run(), job_of(model, order, "device").run())


def offloadings(folder: Path) -> list[ActivationOffloading]:
    return [InMemory(), OnDisk(folder)]


@pytest.mark.parametrize("which", range(2))
def test_values_come_back_to_the_same_tensor(tmp_path: Path, which: int) -> None:
    states = torch.arange(24.0).reshape(2, 3, 4)
    tensors = [states.clone(), states.transpose(0, 1) + 1, states[:, 1:], states.bfloat16()]
    expected, offloading = copy.deepcopy([tensor.contiguous() for tensor in tensors]), offloadings(tmp_path)[which]
    for _ in range(2):
        offloading.offload(7, tensors)
        assert all(tensor.numel() == 0 for tensor in tensors)
        offloading.fetch(7)
        assert all(torch.equal(tensor, value) for tensor, value in zip(tensors, expected, strict=True))
        assert [tensor.dtype for tensor in tensors] == [value.dtype for value in expected]


@pytest.mark.parametrize("which", range(2))
def test_batches_do_not_mix(tmp_path: Path, which: int) -> None:
    batches, offloading = [[torch.full((1, 2, 3), float(index))] for index in range(4)], offloadings(tmp_path)[which]
    for index, tensors in enumerate(batches):
        offloading.offload(index, tensors)
    for index in (2, 0, 3, 1):
        offloading.fetch(index)
        assert bool((batches[index][0] == index).all())


def test_on_the_device_nothing_is_offloaded(temporary: Path) -> None:
    with offloading_of("device") as offloading:
        assert offloading is None
    with offloading_of("ram") as offloading:
        assert isinstance(offloading, InMemory)
    with offloading_of("disk") as offloading:
        assert isinstance(offloading, OnDisk)
        assert len(list(temporary.iterdir())) == 1


@pytest.mark.gpu
def test_values_on_a_gpu_wait_elsewhere(tmp_path: Path) -> None:
    for offloading in offloadings(tmp_path):
        tensors = [torch.ones(1, 2, 3, device="cuda")]
        offloading.offload(0, tensors)
        assert tensors[0].numel() == 0
        assert tensors[0].device.type == "cuda"
        offloading.fetch(0)
        assert torch.equal(tensors[0], torch.ones(1, 2, 3, device="cuda"))
