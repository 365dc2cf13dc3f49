"""One pass of all calibration batches over all blocks, which loads, releases and checkpoints them one by one."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from mwanda.calibration import Batch
from mwanda.errors import CalibrationError, DamagedFileError
from mwanda.models import Block
from mwanda.models.weights import Weights
from mwanda.pruner.experts import in_two_steps
from mwanda.pruner.lockstep import Arrival, Lockstep
from mwanda.pruner.offloading import ActivationOffloading
from mwanda.pruner.run_checkpoint import RunCheckpoint, size_of
from mwanda.system.background import Background


Arrivals = list[Arrival[Batch]]
T = TypeVar("T")
R = TypeVar("R")
DIGEST = "weights"
"""What the checkpoint calls the digest of a block's weights, when they are on disk."""


@dataclass(frozen=True)
class Decision:
    """What was decided in a block, as the checkpoint keeps it."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Output:
    """What a block has returned for a batch, and its bytes: it may be emptied while it waits elsewhere."""

    value: Any
    size: int


class Visitor(ABC):
    """What happens at each block."""

    phase: ClassVar[str]
    """What the checkpoint calls this pass."""

    changes_weights: ClassVar[bool] = False
    """Whether blocks are to be kept as they are when they have been visited."""

    repeatable: ClassVar[bool] = True
    """Whether a finished block makes of each batch what it has made of it before."""

    def stops(self, block: Block) -> Sequence[nn.Module]:
        """Return the modules inside a block at which all batches are to wait; none unless a visitor names some."""
        return ()

    def enter(self, block: Block, arrivals: Arrivals, lockstep: Lockstep[Batch]) -> None:  # noqa: B027
        """All batches are about to enter the block."""

    def reach(self, arrivals: Arrivals) -> None:
        """All batches are about to enter one of the stops."""
        raise NotImplementedError(f"{type(self).__name__} stops nowhere inside a block")

    @abstractmethod
    def leave(self, block: Block) -> Decision:
        """All batches have left the block."""

    @abstractmethod
    def restore(self, block: Block, decision: Decision) -> None:
        """An earlier, interrupted run has finished the block with this decision."""


@dataclass
class Walk:
    """Takes the model's own forward pass over `batches` from block to block.

    Args:
        forward: one batch's way through the model.
        blocks: in the order in which the forward pass meets them.
        batches: all of this process.
        weights: where the weights of blocks are.
        step: called at each block, to show how far it has come.
        offloading: where waiting hidden states are, or None.
        checkpoint: what is finished, or None.
    """

    forward: Callable[[Batch], object]
    blocks: Sequence[Block]
    batches: Sequence[Batch]
    weights: Weights
    step: Callable[[], object]
    offloading: ActivationOffloading | None = None
    checkpoint: RunCheckpoint | None = None

    def run(self, visitor: Visitor) -> None:
        """Visit every block, those that the checkpoint has finished only by what was decided in them."""
        done = self._finished(visitor)
        for block in self.blocks[:done]:
            assert self.checkpoint is not None
            self.step()
            visitor.restore(block, Decision(*self.checkpoint.decided(visitor.phase, block)))
        if done < len(self.blocks):
            self._go(visitor, done)

    def _finished(self, visitor: Visitor) -> int:
        """Return how many blocks need not be visited again, as all that was written of them is what it was."""
        if self.checkpoint is None:
            return 0
        done = self.checkpoint.finished(visitor.phase)
        if visitor.changes_weights:
            digests = [self.checkpoint.metadata(visitor.phase, block).get(DIGEST) for block in self.blocks[:done]]
            damage = None
            try:
                self.weights.resume(self.blocks[:done], digests)
            except DamagedFileError as error:
                damage = error
            if self.checkpoint.forgotten(visitor.phase, damage):
                self.weights.resume((), ())
                return 0
        return done

    def _go(self, visitor: Visitor, done: int) -> None:
        """Visit the blocks from `done` on; those before it answer, or run again where their outputs are not kept."""
        held = [block for block in self.blocks[:done] if self._holds(visitor, block)]
        again = [block for block in self.blocks[:done] if block not in held]
        left = self.blocks[done:]
        by_module = {block.module: block for block in (*again, *left)}
        stops = [*by_module, *(stop for block in left for stop in visitor.stops(block))]
        outputs: dict[int, Output] = {}
        current: Block | None = None
        ahead = iter((*again, *left))
        with ExitStack() as stack:
            writing = stack.enter_context(Background())
            stack.enter_context(in_two_steps((*again, *left)))
            lockstep = stack.enter_context(Lockstep(self._pass, self.batches, stops, self.offloading))
            if self.checkpoint is not None:
                stack.enter_context(self._answering(held, visitor.phase, lockstep))
                stack.enter_context(_recording(left[:-1], lockstep, outputs))
            while arrivals := lockstep.advance():
                block = by_module.get(arrivals[0].module)
                if block is None:
                    visitor.reach(arrivals)
                    continue
                if current in again:
                    self.weights.release(current)
                elif current is not None:
                    self._finish(current, visitor, lockstep, arrivals, outputs, writing)
                if block is not next(ahead, None):
                    raise CalibrationError(
                        f"calibration text enters {block.name} out of turn; blocks are pruned that it enters once each "
                        "and in the order of their list; choose another model"
                    )
                current = block
                self.weights.fetch(block)
                if block not in again:
                    self.step()
                    visitor.enter(block, arrivals, lockstep)
            missed = [block.name for block in ahead]
            if missed:
                names = ", ".join(missed)
                raise CalibrationError(f"calibration text does not pass through {names}; choose another model")
            if current is not None:
                self._finish(current, visitor, lockstep, [], outputs, writing)

    def _holds(self, visitor: Visitor, block: Block) -> bool:
        return self.checkpoint is not None and self.checkpoint.holds(visitor.phase, block)

    def _pass(self, batch: Batch) -> None:
        """Run one batch, and forget what it ends in: its hidden states would stay on the device for every batch."""
        self.forward(batch)

    def _finish(
        self,
        block: Block,
        visitor: Visitor,
        lockstep: Lockstep[Batch],
        arrivals: Arrivals,
        outputs: dict[int, Output],
        writing: Background,
    ) -> None:
        decision = visitor.leave(block)
        elsewhere = any(matrix.weight.device.type != "cpu" for matrix in block.matrices)
        digest = self.weights.keep(block) if visitor.changes_weights else None
        self.weights.release(block)
        if self.checkpoint is not None:
            writing.wait()
            saved = self._save(self.checkpoint, block, visitor, lockstep, arrivals, outputs)
            outputs.clear()
            tensors = {name: tensor.cpu() for name, tensor in decision.tensors.items()}
            metadata = {**decision.metadata, DIGEST: digest}
            finish = partial(self.checkpoint.finish, visitor.phase, block, tensors, metadata, outputs=saved)
            if elsewhere and self.checkpoint.alone:
                writing.begin(finish)
            else:  # all processes take part, or another thread would hold up those that compute
                finish()

    def _save(
        self,
        checkpoint: RunCheckpoint,
        block: Block,
        visitor: Visitor,
        lockstep: Lockstep[Batch],
        arrivals: Arrivals,
        outputs: dict[int, Output],
    ) -> int | None:
        """Save what a block has made of all batches, and return how many; None where it is cheaper to do that again."""
        following = self.blocks[self.blocks.index(block) + 1 :]
        ends = not following or following[0].stack != block.stack  # what an encoder ends with, a decoder looks at
        if not checkpoint.due(sum(output.size for output in outputs.values())) and visitor.repeatable and not ends:
            return None
        for arrival in arrivals:
            lockstep.fetch(arrival)  # the output that is written is the next block's input, and may be offloaded
            random_state, output = lockstep.random_state(arrival.index), outputs[arrival.index].value
            checkpoint.save_output(visitor.phase, block, arrival.index, output, random_state)
            lockstep.offload(arrival)
        return len(arrivals)

    @contextmanager
    def _answering(self, finished: Sequence[Block], phase: str, lockstep: Lockstep[Batch]) -> Iterator[None]:
        """Have finished blocks return what the last of their stack has returned, without computing anything."""
        recent: dict[tuple[str, int], Any] = {}

        def answer(block: Block) -> Callable[..., Any]:
            def forward(*_: Any, **__: Any) -> Any:
                assert self.checkpoint is not None
                assert lockstep.index is not None
                assert lockstep.batch is not None
                place = (block.stack, lockstep.index)
                if place not in recent:
                    recent.clear()
                    recent[place] = self.checkpoint.output(phase, *place, _device_of(block, lockstep.batch))
                return recent[place]

            return forward

        before = {block.module: block.module.__dict__.get("forward") for block in finished}
        for block in finished:
            block.module.__dict__["forward"] = answer(block)
        try:
            yield
        finally:
            for module, own in before.items():
                module.__dict__.pop("forward")
                if own is not None:
                    module.__dict__["forward"] = own


def _device_of(block: Block, batch: Batch) -> torch.device:
    """Return where a block computes; one whose weights are on disk does so where the tokens are."""
    there = (parameter.device for parameter in block.module.parameters() if not parameter.is_meta)
    return next(there, batch.tokens.device)


@contextmanager
def _recording(blocks: Sequence[Block], lockstep: Lockstep[Batch], outputs: dict[int, Output]) -> Iterator[None]:
    """Remember what each block returns for each batch."""

    def remember(module: nn.Module, args: Any, output: Any) -> None:
        if lockstep.index is not None:
            outputs[lockstep.index] = Output(output, size_of(output))

    hooks = [block.module.register_forward_hook(remember) for block in blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def run_by_block(forward: Callable[[T], R], blocks: Sequence[Block], items: Sequence[T], weights: Weights) -> list[R]:
    """Return what `forward` returns for each item, reading each block's weights once for all of them."""
    by_module = {block.module: block for block in blocks}
    current: Block | None = None
    with Lockstep(forward, items, list(by_module)) as lockstep:
        while arrivals := lockstep.advance():
            if current is not None:
                weights.release(current)
            current = by_module[arrivals[0].module]
            weights.fetch(current)
        if current is not None:
            weights.release(current)
        return lockstep.results
