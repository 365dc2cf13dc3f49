"""What a killed run has finished, block by block, so that it can go on from there.

One folder holds, for each phase (a pass over all blocks), what was decided in each finished block, and what one of the
last finished blocks of each stack gave for each batch: enough for the model's own forward pass to be taken up there.
These hidden states are much larger than decisions: they are written when that takes a small share (`SHARE`) of the time
since they were written last, and blocks that were finished after that are run again. `state.json` says which files
count; it is written last and replaced as a whole. Every file bears a digest of what it holds, of the run and of its
place in it, and is checked before anything of it is used. Disk space is bounded by one bit a weight (or the weights,
where a criterion changes them) and twice the hidden states of the calibration set.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from torch import Tensor

from mwanda.errors import CalibrationError, DamagedFileError
from mwanda.models import Block
from mwanda.system.distributed import World
from mwanda.system.files import finite, write_json
from mwanda.system.ownership import plain_name, remove_own
from mwanda.system.sealed import SEAL, digest_of, read_sealed, write_sealed


SCHEMA = "mwanda.checkpoint/3"
STATE = "state.json"
RANDOM_STATE = "random_state"
OWN = (
    r"state\.json",
    r"noted-[a-z]+\.safetensors",
    r"[a-z_-]+-\d{5}(\.rank\d+\.batch\d{6})?\.safetensors",
)
"""Names of the files of a checkpoint: all that is ever removed from its folder."""

SHARE = 0.05
"""Of the time of a run that may go into writing hidden states."""

BYTES_PER_SECOND, AT_ANY_TIME = 1e9, 1 << 20
"""How fast hidden states are copied, sealed and written; and how many bytes of them are not worth a thought."""

logger = logging.getLogger(__name__)


class RunCheckpoint:
    """The checkpoint of one run.

    Args:
        folder: where it is.
        key: of what the run does; a checkpoint with another key is of another run and is not used.
        world: the processes of the run; each keeps the hidden states of its own batches.
    """

    def __init__(self, folder: Path, key: str, world: World | None = None):
        self._folder, self._world = folder, world or World()
        self._key = f"{key}-{self._world.size}"
        self._state: dict[str, Any] = {"schema": SCHEMA, "key": self._key, "phases": {}, "notes": {}}
        found = _read(folder / STATE)
        ours = found is not None and found.get("schema") == SCHEMA and found.get("key") == self._key
        self._foreign = (folder / STATE).exists() and not ours
        self._written = monotonic()
        if found is not None and ours:
            self._state = found
        elif self._foreign and found is not None:
            logger.warning("%s belongs to another configuration or number of processes and is not used", folder)

    @property
    def alone(self) -> bool:
        """Whether no other process takes part."""
        return self._world.size == 1

    def finished(self, phase: str) -> int:
        """Return how many blocks the phase has finished, after a look at all that it has written of them.

        When anything is damaged, none is: that is said, and the phase is done again from its start.
        """
        damage = None
        try:
            for index, entry in enumerate(self._phase(phase)["blocks"]):
                self._decision(phase, index, entry)
            for name, batches in self._phase(phase)["outputs"].values():
                for batch in range(batches[self._world.rank]):
                    self._load(self._output(name, batch))
        except DamagedFileError as error:
            damage = error
        self.forgotten(phase, damage)
        return len(self._phase(phase)["blocks"])

    def forgotten(self, phase: str, damage: DamagedFileError | None) -> bool:
        """Forget what a phase has finished if it is damaged for any process; return whether that was so."""
        said = [each for each in self._world.all_gather(str(damage or "")) if each]
        if said:
            logger.warning("%s; what was finished before is done again", said[0])
            self._state["phases"].pop(phase)
        return bool(said)

    def decided(self, phase: str, block: Block) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what the phase decided in a finished block."""
        entry = self._phase(phase)["blocks"][block.index]
        return self._decision(phase, block.index, entry), entry["metadata"]

    def metadata(self, phase: str, block: Block) -> dict[str, Any]:
        """Return what besides tensors was decided in a finished block."""
        found: dict[str, Any] = self._phase(phase)["blocks"][block.index]["metadata"]
        return found

    def holds(self, phase: str, block: Block) -> bool:
        """Return whether the outputs of a finished block, or of one behind it in its stack, are there."""
        name, _ = self._phase(phase)["outputs"].get(block.stack, ("", []))
        return bool(name) and _name(phase, block) <= name

    def due(self, size: int) -> bool:
        """Return whether outputs of `size` bytes, those of this process, are worth writing now; the same in all."""
        wanted = size <= AT_ANY_TIME or size / BYTES_PER_SECOND <= SHARE * (monotonic() - self._written)
        return "no" not in self._world.all_gather("yes" if wanted else "no")

    def output(self, phase: str, stack: str, batch: int, device: torch.device | str = "cpu") -> Any:
        """Return what the last finished block of a stack gave for a batch, and set the random state of that time.

        It comes to `device`, wherever it was: a run may go on with other devices than it began with.
        """
        name, _ = self._phase(phase)["outputs"][stack]
        tensors, metadata = self._load(self._output(name, batch))
        torch.set_rng_state(tensors.pop(RANDOM_STATE))
        return _assemble(json.loads(metadata["structure"]), tensors, device)

    def save_output(self, phase: str, block: Block, batch: int, output: Any, random_state: Tensor) -> None:
        """Write what a block gave for one batch, and the random numbers that follow for it.

        It counts once `finish` has been called for the block.
        """
        self._claim()
        tensors: dict[str, Tensor] = {RANDOM_STATE: random_state}
        structure = json.dumps(_take_apart(output, tensors, "output"))
        self._write(self._output(_name(phase, block), batch), tensors, {"structure": structure})

    def finish(
        self,
        phase: str,
        block: Block,
        tensors: Mapping[str, Tensor],
        metadata: Mapping[str, Any],
        *,
        outputs: int | None,
    ) -> None:
        """Write what was decided in a block and count it as finished.

        Args:
            phase: the pass.
            block: that is finished.
            tensors: what was decided.
            metadata: what else was, as JSON can hold it.
            outputs: the batches of this process whose outputs have been saved; 0 when the pass is over, None when those
                of an earlier block are still to be taken up from.
        """
        self._claim()
        name, state = _name(phase, block), self._phase(phase)
        if self._world.first and tensors:
            self._write(self._file(name), tensors)
        state["blocks"].append({"tensors": bool(tensors), "metadata": dict(metadata)})
        if outputs is None:
            self._write_state()
            return
        self._written = monotonic()
        batches = [int(each) for each in self._world.all_gather(str(outputs))]
        if any(batches):
            state["outputs"][block.stack] = [name, batches]
        else:  # the pass is over, and nothing is taken up in it any more
            state["outputs"].clear()
        self._write_state()
        kept = {name for name, _ in state["outputs"].values()}
        for old in self._folder.glob(f"{phase}-*.rank{self._world.rank}.batch*"):
            if old.name.partition(".")[0] not in kept:
                old.unlink(missing_ok=True)

    def note(self, name: str, text: str) -> None:
        """Keep something else that the run has found."""
        self._claim()
        self._state["notes"][name] = text
        self._write_state()

    def noted(self, name: str) -> str | None:
        """Return what `note` has kept."""
        found: str | None = self._state["notes"].get(name)
        return found

    def note_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors that the run has found."""
        self._claim()
        if self._world.first:
            self._write(self._file(f"noted-{name}"), tensors)
        self._world.barrier()

    def noted_tensors(self, name: str) -> dict[str, Tensor] | None:
        """Return what `note_tensors` has kept, None where there is nothing that can be trusted, which is said."""
        found, damage = None, ""
        try:
            found = self._load(self._file(f"noted-{name}"))[0]
        except DamagedFileError as error:
            damage = str(error)
        # All processes do the same, as those that look again do so together.
        said = [each for each in self._world.all_gather(damage) if each]
        if said:
            logger.warning("%s; what was found before is looked for again", said[0])
        return None if said else found

    def discard(self) -> None:
        """Remove the checkpoint, when the run needs it no longer."""
        self._world.barrier()
        if self._world.first:
            (self._folder / STATE).unlink(missing_ok=True)  # first: half a checkpoint must not look like a whole one
            remove_own(self._folder, OWN)

    def _claim(self) -> None:
        """Remove the checkpoint of another run before its files are written over: half of it must not be used."""
        if self._foreign:
            self._foreign = False
            self.discard()
            self._world.barrier()

    def _phase(self, phase: str) -> dict[str, Any]:
        found: dict[str, Any] = self._state["phases"].setdefault(phase, {"blocks": [], "outputs": {}})
        return found

    def _output(self, name: str, batch: int) -> Path:
        return self._file(f"{plain_name(name)}.rank{self._world.rank}.batch{batch:06d}")

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors"

    def _decision(self, phase: str, index: int, entry: Mapping[str, Any]) -> dict[str, Tensor]:
        return self._load(self._file(f"{phase}-{index:05d}"))[0] if entry["tensors"] else {}

    def _write(self, path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] = {}) -> None:
        write_sealed(path, _apart(tensors), f"{self._key}/{path.name}", metadata)

    def _load(self, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Read a file of this run that bears the name of what it holds, so that no other can stand in its place."""
        return read_sealed(path, f"{self._key}/{path.name}")

    def _write_state(self) -> None:
        if self._world.first:
            write_json(self._folder / STATE, self._state | {SEAL: digest_of(_as_read(self._state))})
        self._world.barrier()


def size_of(output: Any) -> int:
    """Return the bytes of all tensors in nested tuples and lists."""
    if isinstance(output, Tensor):
        return output.numel() * output.itemsize
    return sum(size_of(part) for part in output) if isinstance(output, tuple | list) else 0


def _name(phase: str, block: Block) -> str:
    return f"{phase}-{block.index:05d}"


def _read(path: Path) -> dict[str, Any] | None:
    """Return the state that a file holds; None where there is none, or none that could be trusted, which is said."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        found = None
    state: dict[str, Any] = found if isinstance(found, dict) else {"schema": SCHEMA}
    if state.pop(SEAL, None) != digest_of(state) and state.get("schema") == SCHEMA:
        logger.warning("%s is damaged; what was finished before is done again", path)
        return None
    return state


def _as_read(state: Mapping[str, Any]) -> Any:
    """Return a state as it is once it has been written and read: without NaN, lists for tuples."""
    return json.loads(json.dumps(finite(state)))


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `tensors` without any two that share memory, which a safetensors file cannot hold."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return apart


def _take_apart(value: Any, tensors: dict[str, Tensor], name: str) -> Any:
    """Return a JSON description of nested tuples and lists of tensors, which go to `tensors` under their names."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, tuple | list):
        parts = [_take_apart(part, tensors, f"{name}.{place}") for place, part in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": parts}
    if value is None or isinstance(value, bool | int | float):
        return {"plain": value}
    raise CalibrationError(
        f"a block returns {type(value).__name__}, which cannot be checkpointed; use pruner.checkpoint=false"
    )


def _assemble(structure: Mapping[str, Any], tensors: Mapping[str, Tensor], device: torch.device | str) -> Any:
    if "tensor" in structure:
        return tensors[structure["tensor"]].to(device)
    if "plain" in structure:
        return structure["plain"]
    (kind, parts), *_ = structure.items()
    values = [_assemble(part, tensors, device) for part in parts]
    return tuple(values) if kind == "tuple" else values
