"""What a killed run has finished, block by block, so that it can go on from there.

One folder holds, for each phase (a pass over all blocks), what was decided in each finished block, and what the last
finished block of each stack gave for each batch: enough for the model's own forward pass to be taken up behind it.
`state.json` names the files that count; it is written last and replaced as a whole. Disk space is bounded by one bit
a weight (or the weights, where a criterion changes them) and twice the hidden states of the calibration set.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from mwanda.errors import CalibrationError
from mwanda.models import Block
from mwanda.system.distributed import World
from mwanda.system.files import write_json, write_tensors
from mwanda.system.ownership import plain_name, remove_own


SCHEMA = "mwanda.checkpoint/2"
STATE = "state.json"
RANDOM_STATE = "random_state"
OWN = (r"state\.json", r"[a-z_-]+-\d{5}(\.rank\d+\.batch\d{6})?\.safetensors")
"""Names of the files of a checkpoint: all that is ever removed from its folder."""

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
        self._foreign = found is not None and not ours
        if found is not None and ours:
            self._state = found
        elif self._foreign:
            logger.warning("%s belongs to another configuration or number of processes and is not used", folder)

    def finished(self, phase: str) -> int:
        """Return how many blocks the phase has finished."""
        return len(self._phase(phase)["blocks"])

    def decided(self, phase: str, index: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what the phase decided in a finished block."""
        entry = self._phase(phase)["blocks"][index]
        return _load(self._folder / plain_name(entry["file"]))[0] if entry["file"] else {}, entry["metadata"]

    def output(self, phase: str, stack: str, batch: int) -> Any:
        """Return what the last finished block of a stack gave for a batch, and set the random state of that time."""
        tensors, metadata = _load(self._output(self._phase(phase)["outputs"][stack], batch))
        torch.set_rng_state(tensors.pop(RANDOM_STATE))
        return _assemble(json.loads(metadata["structure"]), tensors)

    def save_output(self, phase: str, block: Block, batch: int, output: Any) -> None:
        """Write what a block gave for one batch; it counts once `finish` has been called for the block."""
        self._claim()
        tensors: dict[str, Tensor] = {RANDOM_STATE: torch.get_rng_state()}
        structure = json.dumps(_take_apart(output, tensors, "output"))
        write_tensors(self._output(_name(phase, block), batch), _apart(tensors), {"structure": structure})

    def finish(
        self, phase: str, block: Block, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], *, outputs: bool
    ) -> None:
        """Write what was decided in a block and count it as finished."""
        self._claim()
        name, state = _name(phase, block), self._phase(phase)
        file = f"{name}.safetensors" if tensors else None
        if self._world.first and file is not None:
            write_tensors(self._folder / file, _apart(tensors))
        self._world.barrier()
        state["blocks"].append({"file": file, "metadata": dict(metadata)})
        if outputs:
            state["outputs"][block.stack] = name
        else:  # the pass is over, and nothing is taken up in it any more
            state["outputs"].clear()
        if self._world.first:
            write_json(self._folder / STATE, self._state)
        self._world.barrier()
        for old in self._folder.glob(f"{phase}-*.rank{self._world.rank}.batch*"):
            if old.name.partition(".")[0] not in state["outputs"].values():
                old.unlink(missing_ok=True)

    def note(self, name: str, text: str) -> None:
        """Keep something else that the run has found."""
        self._claim()
        self._state["notes"][name] = text
        if self._world.first:
            write_json(self._folder / STATE, self._state)
        self._world.barrier()

    def noted(self, name: str) -> str | None:
        """Return what `note` has kept."""
        found: str | None = self._state["notes"].get(name)
        return found

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
        return self._folder / f"{plain_name(name)}.rank{self._world.rank}.batch{batch:06d}.safetensors"


def _name(phase: str, block: Block) -> str:
    return f"{phase}-{block.index:05d}"


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


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
        return {"tensor": name, "device": str(value.device)}
    if isinstance(value, tuple | list):
        parts = [_take_apart(part, tensors, f"{name}.{place}") for place, part in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": parts}
    if value is None or isinstance(value, bool | int | float):
        return {"plain": value}
    raise CalibrationError(
        f"a block returns {type(value).__name__}, which cannot be checkpointed; use pruner.checkpoint=false"
    )


def _assemble(structure: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    if "tensor" in structure:
        return tensors[structure["tensor"]].to(structure["device"])
    if "plain" in structure:
        return structure["plain"]
    (kind, parts), *_ = structure.items()
    values = [_assemble(part, tensors) for part in parts]
    return tuple(values) if kind == "tuple" else values
