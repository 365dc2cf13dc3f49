"""A checkpoint of which anything is damaged gives what an undamaged one gives, and says so."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from interruption import Interrupted, Job, StopAt, assert_same
from plain_decoder import CALIBRATION, PlainDecoder
from pruning_oracle import every_order
from safetensors import safe_open
from safetensors.torch import save_file
from streamed_run import run_streamed

from mwanda.criteria.mwanda import MWanda
from mwanda.criteria.sparsegpt import SparseGPT
from mwanda.errors import DamagedFileError
from mwanda.pruner import Pruner
from mwanda.pruner.engine import Order
from mwanda.pruner.run_checkpoint import STATE, RunCheckpoint
from mwanda.schedules.fisher import Fisher
from mwanda.schedules.owl_cwl import OWLCWL
from mwanda.system.sealed import read_sealed, write_sealed


def swap_bits(path: Path) -> None:
    """Change one value of one tensor, and leave a file in which nothing looks wrong."""
    with safe_open(path, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata()  # noqa: SIM118
    values = tensors[max(tensors)].reshape(-1)
    values[0] = values[0] + 1
    save_file(tensors, path, metadata)


def flip_a_byte(path: Path) -> None:
    """Change one byte at the end."""
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    """Leave the first half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def fill_with_nonsense(path: Path) -> None:
    """Leave nothing of it."""
    path.write_bytes(b"\x00nonsense" * 100)


def put_another_in_its_place(path: Path) -> None:
    """Put that of another block or batch there."""
    others = [each for each in sorted(path.parent.iterdir()) if each.suffix == path.suffix and each != path]
    if others:
        shutil.copy(others[0], path)
    else:
        path.unlink()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "two bits": swap_bits,
    "a byte": flip_a_byte,
    "half of it": cut,
    "nonsense": fill_with_nonsense,
    "gone": Path.unlink,
    "another's": put_another_in_its_place,
}
every_damage = pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)


def interrupted(order: Order, folder: Path, step: int = 2) -> Job:
    """Return a job whose checkpoint lies in a folder, interrupted after `step` blocks."""
    job = Job(PlainDecoder(), CALIBRATION, Pruner(order, 3), SparseGPT(), OWLCWL(2.0))
    with pytest.raises(Interrupted):
        job.run(folder, StopAt(step))
    return job


@every_order
@every_damage
def test_any_damaged_file_is_said_and_its_blocks_are_done_again(
    tmp_path: Path, order: Order, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    job = interrupted(order, tmp_path / "checkpoint", 5)
    expected = job.run()
    files = sorted((tmp_path / "checkpoint").glob("*.safetensors"))
    assert files
    for index, file in enumerate(files):
        folder = Path(shutil.copytree(tmp_path / "checkpoint", tmp_path / str(index)))
        damage(folder / file.name)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert_same(job.run(folder), expected)
        (said,) = [record.getMessage() for record in caplog.records if "is damaged" in record.getMessage()]
        assert str(folder / file.name) in said
        assert "\n" not in said


@every_order
@every_damage
def test_damaged_rows_are_said_and_gradients_are_taken_again(
    tmp_path: Path, order: Order, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    job = Job(PlainDecoder(), CALIBRATION, Pruner(order, 3), MWanda(), Fisher(signal_fraction=1.0))
    whole = StopAt()
    expected = job.run(progress=whole)
    with pytest.raises(Interrupted):
        job.run(tmp_path / "damaged", StopAt(len(whole.steps) - 1))
    undamaged = Path(shutil.copytree(tmp_path / "damaged", tmp_path / "undamaged"))
    file = tmp_path / "damaged" / "noted-damage.safetensors"
    damage(file)
    again, not_again = StopAt(), StopAt()
    with caplog.at_level(logging.WARNING):
        assert_same(job.run(tmp_path / "damaged", again), expected)
    assert str(file) in caplog.text
    assert_same(job.run(undamaged, not_again), expected)
    assert again.steps.count("gradients") == whole.steps.count("gradients") > not_again.steps.count("gradients") == 0


@pytest.mark.parametrize("order", ["block", "oneshot"])
@pytest.mark.parametrize(
    "damage",
    [cut, fill_with_nonsense, lambda path: path.write_text("[]"), lambda path: path.write_bytes(b"\xff\xfe")],
    ids=["half of it", "nonsense", "a list", "no text"],
)
def test_a_damaged_state_is_said_and_everything_is_done_again(
    tmp_path: Path, order: Order, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    job = interrupted(order, tmp_path)
    damage(tmp_path / STATE)
    with caplog.at_level(logging.WARNING):
        assert_same(job.run(tmp_path), job.run())
    assert f"{tmp_path / STATE} is damaged" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["phases"]["dense"]["blocks"].pop(),
        lambda state: state["phases"]["dense"]["blocks"][0]["metadata"].update(signal=[0.1, 0.2]),
        lambda state: state["notes"].update(dense="{}"),
        lambda state: state.pop("seal"),
    ],
    ids=["fewer blocks", "another signal", "another note", "no seal"],
)
def test_a_state_that_was_changed_is_not_believed(
    tmp_path: Path, change: Callable[[dict[str, dict[str, object]]], object], caplog: pytest.LogCaptureFixture
) -> None:
    job = interrupted("block", tmp_path, 3)
    RunCheckpoint(tmp_path, "key").note("dense", "{'a': 1}")
    state = json.loads((tmp_path / STATE).read_text())
    change(state)
    (tmp_path / STATE).write_text(json.dumps(state))
    with caplog.at_level(logging.WARNING):
        assert RunCheckpoint(tmp_path, "key").noted("dense") is None
    assert f"{tmp_path / STATE} is damaged" in caplog.text
    assert_same(job.run(tmp_path), job.run())


def test_files_of_a_run_with_another_key_are_damaged_for_this_one(tmp_path: Path) -> None:
    job = interrupted("block", tmp_path / "ours", 5)
    other = Job(job.dense, CALIBRATION, job.pruner, MWanda(), OWLCWL(2.0), sparsity=0.2)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr("interruption.RunCheckpoint", lambda folder, _: RunCheckpoint(folder, "other"))
        other.run(tmp_path / "theirs", StopAt(5))
    for file in (tmp_path / "theirs").glob("*.safetensors"):
        shutil.copy(file, tmp_path / "ours")
    assert_same(job.run(tmp_path / "ours"), job.run())


@pytest.mark.parametrize("order", ["block", "arrival"])
@every_damage
def test_a_damaged_block_on_disk_is_said_and_pruned_again(
    tmp_path: Path, order: Order, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    job = Job(PlainDecoder(), CALIBRATION, Pruner(order, 3), SparseGPT())
    with pytest.raises(Interrupted):
        run_streamed(job, tmp_path / "blocks", tmp_path / "checkpoint", StopAt(2))
    for file in sorted((tmp_path / "blocks").iterdir()):
        blocks, checkpoint = (
            Path(shutil.copytree(tmp_path / name, tmp_path / f"{name} {file.name}"))
            for name in ("blocks", "checkpoint")
        )
        damage(blocks / file.name)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert_same(run_streamed(job, blocks, checkpoint), job.run())
        assert f"{blocks / file.name} is damaged" in caplog.text


def test_weights_that_are_not_damaged_are_not_pruned_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    job = Job(PlainDecoder(), CALIBRATION, Pruner("block", 3), SparseGPT())
    with pytest.raises(Interrupted):
        run_streamed(job, tmp_path / "blocks", tmp_path / "checkpoint", StopAt(2))
    before = (tmp_path / "blocks" / "block-00000.safetensors").stat().st_mtime_ns
    with caplog.at_level(logging.WARNING):
        assert_same(run_streamed(job, tmp_path / "blocks", tmp_path / "checkpoint"), job.run())
    assert (tmp_path / "blocks" / "block-00000.safetensors").stat().st_mtime_ns == before
    assert caplog.text == ""


def test_the_seal_covers_names_shapes_types_and_values(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(True), "c": torch.ones(2, dtype=torch.bfloat16)}
    write_sealed(tmp_path / "file", tensors, "purpose", {"more": "text"})
    found, metadata = read_sealed(tmp_path / "file", "purpose")
    assert metadata == {"more": "text"}
    assert all(found[name].dtype == value.dtype and torch.equal(found[name], value) for name, value in tensors.items())
    with safe_open(tmp_path / "file", framework="pt") as file:
        seal = file.metadata()
    others = [
        {**tensors, "a": tensors["a"].reshape(3, 2)},
        {**tensors, "a": tensors["a"].view(torch.int32)},
        {"d" if name == "a" else name: value for name, value in tensors.items()},
        {name: value for name, value in tensors.items() if name != "b"},
        {**tensors, "b": torch.tensor(False)},
    ]
    for number, other in enumerate(others):
        save_file(other, tmp_path / str(number), seal)
        with pytest.raises(DamagedFileError, match="does not hold what was written"):
            read_sealed(tmp_path / str(number), "purpose")
    save_file(tensors, tmp_path / "text", seal | {"more": "other"})
    for name, purpose in (("file", "another"), ("text", "purpose"), ("missing", "purpose")):
        with pytest.raises(DamagedFileError):
            read_sealed(tmp_path / name, purpose)
