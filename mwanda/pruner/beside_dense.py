"""Prunes with the dense model's hidden states beside those of the pruned one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from mwanda.calibration import Batch
from mwanda.models import Block, Matrix
from mwanda.pruner.experts import place_of
from mwanda.pruner.lockstep import Lockstep
from mwanda.pruner.visitors import ByBlock, run_all
from mwanda.pruner.walk import Arrivals


@dataclass
class BesideDense(ByBlock):
    """Prunes block by block with a second copy of each batch, which every block takes through its dense weights.

    The second half of the batches are the copies. Each block first runs the copy, whose inputs of matrices are kept,
    and then the batch itself, observed together with them. When the batches go on, the copies are given what the dense
    block has made of them.
    """

    repeatable: ClassVar[bool] = False
    _outputs: dict[int, Any] = field(default_factory=dict)
    _lockstep: Lockstep[Batch] | None = None

    def stops(self, block: Block) -> Sequence[nn.Module]:
        """Wait nowhere inside a block, but have it return for each copy what it made of it when it was dense.

        This is done before any batch is started: a batch that waits at a module knows already what it will call.
        """
        module = block.module
        own, before = module.forward, module.__dict__.get("forward")

        def forward(*args: Any, **kwargs: Any) -> Any:
            index = self._lockstep.index if self._lockstep is not None else None
            return self._outputs.pop(index) if index in self._outputs else own(*args, **kwargs)

        def restore() -> None:
            module.__dict__.pop("forward")
            if before is not None:
                module.__dict__["forward"] = before

        module.__dict__["forward"] = forward
        self.hooks.callback(restore)
        return ()

    def enter(self, block: Block, arrivals: Arrivals, lockstep: Lockstep[Batch]) -> None:
        """Observe and prune."""
        self._lockstep = lockstep
        half, matrices = len(arrivals) // 2, block.matrices
        own, copies = arrivals[:half], arrivals[half:]
        weights = self.calibrator.token_weights(matrices, lambda observer: run_all(observer, own, lockstep))
        observer = self.calibrator.observer(matrices, token_weights=weights)
        with observer.watching(), _inputs_of(matrices) as inputs:
            for arrival, copy in zip(own, copies, strict=True):
                lockstep.fetch(copy)
                self._outputs[copy.index] = copy.module(*copy.args, **copy.kwargs)
                dense = dict(inputs)
                lockstep.fetch(arrival)
                with observer.reading(arrival.batch, dense):
                    arrival.module(*arrival.args, **arrival.kwargs)
                lockstep.offload(arrival)
                lockstep.offload(copy)  # not before: what its matrices were called with may be its hidden states
        self._remove(matrices, self.calibrator.complete(observer, matrices))


@contextmanager
def _inputs_of(matrices: Sequence[Matrix]) -> Iterator[dict[nn.Module, Tensor]]:
    """Keep what the modules of matrices were last called with."""
    inputs: dict[nn.Module, Tensor] = {}

    def keep(place: nn.Module, args: tuple[Any, ...]) -> None:
        inputs[place] = args[0]

    hooks = [place.register_forward_pre_hook(keep) for place in {place_of(matrix) for matrix in matrices}]
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()
