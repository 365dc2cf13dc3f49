"""The checkpoint of a run: what is written comes back, and nothing else is ever used."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mwanda.errors import CalibrationError
from mwanda.models import Block
from mwanda.pruner.run_checkpoint import STATE, RunCheckpoint
from mwanda.system.distributed import World


def block(index: int, stack: str = "layers") -> Block:
    return Block(index, f"{stack}.{index}", nn.Module(), (), stack)


def finish(checkpoint: RunCheckpoint, index: int, outputs: list[Any] | None = None, stack: str = "layers") -> None:
    """Finish a block of the phase `prune`, whose outputs are given for each batch."""
    for batch, output in enumerate(outputs or []):
        checkpoint.save_output("prune", block(index, stack), batch, output, torch.get_rng_state())
    checkpoint.finish("prune", block(index, stack), {"mask": torch.tensor([index])}, {}, outputs=len(outputs or []))


def batches(folder: Path) -> list[str]:
    """Return the files that hold outputs."""
    return sorted(path.name.removesuffix(".safetensors") for path in folder.glob("*.batch*"))


STATES = torch.arange(24.0).reshape(2, 3, 4)
RANDOM = torch.get_rng_state()
OUTPUTS = {
    "a tensor": STATES,
    "a tuple of one": (STATES,),
    "a tuple with nothing in it": (STATES, None),
    "an empty tuple": (),
    "nothing": None,
    "nested": [STATES, (STATES + 1, None, [STATES.to(torch.int64)]), True, 3, 0.1],
    "one tensor twice": (STATES, STATES),
    "views of one tensor": (STATES, STATES[:, 1:], STATES.transpose(0, 1), STATES[0, 0, 0]),
    "a transposed tensor": STATES.transpose(1, 2),
    "an expanded tensor": STATES[:1].expand(5, 3, 4),
    "no elements": STATES[:0],
    "bfloat16, float16, bool": (STATES.bfloat16(), STATES.half(), STATES > 3),
    "float64 to the bit": torch.tensor([0.1, 1 / 3, 5e-324, -0.0], dtype=torch.float64),
}


def assert_equal(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, Tensor):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
    elif isinstance(expected, tuple | list):
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert_equal(ours, theirs)
    else:
        assert found == expected


@pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS)
def test_what_a_block_returned_comes_back(tmp_path: Path, output: Any) -> None:
    finish(RunCheckpoint(tmp_path, "key"), 0, [output, (output, output)])
    checkpoint = RunCheckpoint(tmp_path, "key")
    assert_equal(checkpoint.output("prune", "layers", 0), output)
    assert_equal(checkpoint.output("prune", "layers", 1), (output, output))


def test_what_comes_back_is_not_the_file(tmp_path: Path) -> None:
    finish(RunCheckpoint(tmp_path, "key"), 0, [STATES])
    checkpoint = RunCheckpoint(tmp_path, "key")
    checkpoint.output("prune", "layers", 0).zero_()
    assert torch.equal(checkpoint.output("prune", "layers", 0), STATES)


def test_an_output_that_is_no_tensor_is_an_error_that_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"returns dict, .* pruner\.checkpoint=false"):
        RunCheckpoint(tmp_path, "key").save_output("prune", block(0), 0, (STATES, {"states": STATES}), RANDOM)


def test_random_numbers_go_on_as_they_would_have(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    try:
        torch.manual_seed(3)
        finish(RunCheckpoint(tmp_path, "key"), 0, [STATES])
        expected = torch.rand(5)
        torch.manual_seed(4)
        RunCheckpoint(tmp_path, "key").output("prune", "layers", 0)
        assert torch.equal(torch.rand(5), expected)
    finally:
        torch.set_rng_state(state)


def test_large_outputs_are_due_when_writing_them_takes_a_small_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("mwanda.pruner.run_checkpoint.monotonic", lambda: now[0])
    checkpoint = RunCheckpoint(tmp_path, "key")
    assert checkpoint.due(1000)
    assert not checkpoint.due(2 * 10**9)  # of an 8B; two seconds
    now[0] = 50.0
    assert checkpoint.due(2 * 10**9)
    finish(checkpoint, 0, [STATES])
    assert not checkpoint.due(2 * 10**9)


def test_outputs_of_an_earlier_block_stay_until_others_are_written(tmp_path: Path) -> None:
    checkpoint = RunCheckpoint(tmp_path, "key")
    finish(checkpoint, 0, [STATES])
    checkpoint.finish("prune", block(1), {"mask": torch.tensor([1])}, {}, outputs=None)
    again = RunCheckpoint(tmp_path, "key")
    assert again.finished("prune") == 2
    assert (again.holds("prune", block(0)), again.holds("prune", block(1))) == (True, False)
    assert torch.equal(again.output("prune", "layers", 0), STATES)


def test_decisions_come_back_for_each_phase(tmp_path: Path) -> None:
    checkpoint = RunCheckpoint(tmp_path, "key")
    shared = torch.tensor([1.5, 2.5])
    checkpoint.finish("dense", block(0), {}, {"signal": (0.1, 1 / 3), "pooled": ["a"]}, outputs=0)
    checkpoint.finish("prune", block(0), {"a": shared, "b": shared, "c": shared[1:]}, {}, outputs=0)
    again = RunCheckpoint(tmp_path, "key")
    assert (again.finished("dense"), again.finished("prune"), again.finished("other")) == (1, 1, 0)
    assert again.decided("dense", block(0)) == ({}, {"signal": [0.1, 1 / 3], "pooled": ["a"]})
    tensors, metadata = again.decided("prune", block(0))
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {"a": [1.5, 2.5], "b": [1.5, 2.5], "c": [2.5]}
    assert metadata == {}


def test_a_block_counts_once_it_is_finished(tmp_path: Path) -> None:
    checkpoint = RunCheckpoint(tmp_path, "key")
    finish(checkpoint, 0, [STATES])
    checkpoint.save_output("prune", block(1), 0, STATES + 1, RANDOM)
    again = RunCheckpoint(tmp_path, "key")
    assert again.finished("prune") == 1
    assert torch.equal(again.output("prune", "layers", 0), STATES)


def test_without_a_folder_nothing_is_finished_and_nothing_is_made(tmp_path: Path) -> None:
    assert RunCheckpoint(tmp_path / "none", "key").finished("prune") == 0
    assert not (tmp_path / "none").exists()


@dataclass(frozen=True)
class Apart(World):
    """One of several processes whose others are not there to be waited for."""

    def barrier(self) -> None:
        """Do not wait."""

    def all_gather(self, text: str) -> list[str]:
        """Take it that the others say the same."""
        return [text] * self.size


@pytest.mark.parametrize(
    "checkpoint_of", [("other", World()), ("key", Apart(0, 2))], ids=["key", "number of processes"]
)
def test_a_checkpoint_of_another_run_is_not_used(
    tmp_path: Path, checkpoint_of: tuple[str, World], caplog: pytest.LogCaptureFixture
) -> None:
    finish(RunCheckpoint(tmp_path, "key"), 0, [STATES])
    with caplog.at_level(logging.WARNING):
        assert RunCheckpoint(tmp_path, *checkpoint_of).finished("prune") == 0
    assert "is not used" in caplog.text
    assert RunCheckpoint(tmp_path, "key").finished("prune") == 1


def test_a_checkpoint_of_another_schema_is_not_used(tmp_path: Path) -> None:
    finish(RunCheckpoint(tmp_path, "key"), 0, [STATES])
    state = json.loads((tmp_path / STATE).read_text())
    (tmp_path / STATE).write_text(json.dumps({**state, "schema": "mwanda.checkpoint/0"}))
    assert RunCheckpoint(tmp_path, "key").finished("prune") == 0


def test_files_of_two_runs_are_never_mixed(tmp_path: Path) -> None:
    """Were the first run to go on, its finished block would hold what the second has decided."""
    finish(RunCheckpoint(tmp_path, "first"), 0, [STATES, STATES])
    RunCheckpoint(tmp_path, "second").save_output("prune", block(0), 0, STATES + 1, RANDOM)
    assert RunCheckpoint(tmp_path, "first").finished("prune") == 0
    assert batches(tmp_path) == ["prune-00000.rank0.batch000000"]


def test_another_run_goes_on_from_its_own_blocks(tmp_path: Path) -> None:
    finish(RunCheckpoint(tmp_path, "first"), 0, [STATES])
    second = RunCheckpoint(tmp_path, "second")
    finish(second, 0, [STATES + 1])
    finish(second, 1, [STATES + 2])
    again = RunCheckpoint(tmp_path, "second")
    assert again.finished("prune") == 2
    assert torch.equal(again.output("prune", "layers", 0), STATES + 2)


def test_only_the_outputs_of_the_last_block_of_each_stack_remain(tmp_path: Path) -> None:
    checkpoint = RunCheckpoint(tmp_path, "key")
    for index, stack in enumerate(("encoder", "encoder", "decoder", "decoder")):
        finish(checkpoint, index, [STATES, STATES], stack)
    kept = [f"prune-{index:05d}.rank0.batch{batch:06d}" for index in (1, 3) for batch in (0, 1)]
    assert batches(tmp_path) == kept
    finish(checkpoint, 4, stack="decoder")
    assert batches(tmp_path) == []  # the pass is over


def test_outputs_that_a_killed_run_left_behind_go_with_the_next_block(tmp_path: Path) -> None:
    finish(RunCheckpoint(tmp_path, "key"), 0, [STATES])
    RunCheckpoint(tmp_path, "key").save_output("prune", block(1), 7, STATES, RANDOM)
    (tmp_path / "prune-00007.rank0.batch000000.safetensors").touch()
    finish(RunCheckpoint(tmp_path, "key"), 1, [STATES])
    finish(RunCheckpoint(tmp_path, "key"), 2, [STATES])
    assert batches(tmp_path) == ["prune-00002.rank0.batch000000"]


def test_each_process_keeps_the_outputs_of_its_own_batches(tmp_path: Path) -> None:
    checkpoints = [RunCheckpoint(tmp_path, "key", Apart(rank, 2)) for rank in (1, 0)]
    for index in range(2):
        for checkpoint, value in zip(checkpoints, (1, 0), strict=True):
            checkpoint.save_output("prune", block(index), 0, STATES + 10 * index + value, RANDOM)
        for checkpoint in checkpoints:
            checkpoint.finish("prune", block(index), {"mask": STATES + index}, {}, outputs=1)
    assert batches(tmp_path) == [f"prune-00001.rank{rank}.batch000000" for rank in range(2)]
    for rank in range(2):
        again = RunCheckpoint(tmp_path, "key", Apart(rank, 2))
        assert torch.equal(again.output("prune", "layers", 0), STATES + 10 + rank)
        assert torch.equal(again.decided("prune", block(1))[0]["mask"], STATES + 1)


def test_discarding_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    checkpoint = RunCheckpoint(folder, "key")
    finish(checkpoint, 0, [STATES])
    checkpoint.discard()
    assert not folder.exists()
    checkpoint.discard()


def test_half_a_discarded_checkpoint_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = RunCheckpoint(tmp_path, "key")
    finish(checkpoint, 0, [STATES])
    monkeypatch.setattr("mwanda.pruner.run_checkpoint.remove_own", lambda *_, **__: None)
    checkpoint.discard()
    assert len(batches(tmp_path)) == 1
    assert RunCheckpoint(tmp_path, "key").finished("prune") == 0
