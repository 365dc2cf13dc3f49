"""Measures what pruning each matrix would cost each language, by one forward and one backward pass of the dense model.

Forward keeps what enters each block; backward runs one block at a time again and takes gradients through it alone, so
that neither all weights nor all hidden states within blocks are ever needed at once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mwanda.calibration import Batch
from mwanda.criteria import Criterion
from mwanda.errors import CalibrationError
from mwanda.models import Block
from mwanda.models.forward import forward, input_device
from mwanda.models.head import OutputHead, agrees
from mwanda.models.weights import Weights
from mwanda.patterns import Pattern
from mwanda.pruner.damage.labels import Draws, draw_tokens
from mwanda.pruner.damage.products import removal_levels
from mwanda.pruner.damage.recorder import Recorder
from mwanda.pruner.experts import in_two_steps
from mwanda.pruner.lockstep import Lockstep
from mwanda.pruner.observe import Observer
from mwanda.pruner.offloading import ActivationOffloading
from mwanda.pruner.visitors import Calibrator
from mwanda.pruner.walk import Arrivals, Decision, Visitor, Walk
from mwanda.statistics import LanguageStatistics
from mwanda.system.device import repeatable, sent


PROBED = 8
"""Tokens on which the fast head is compared with the model's own."""


@dataclass
class BlockCall:
    """What one batch needs of the forward pass, to be run through one block again."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass
class BlockInputs(Visitor):
    """Keeps what enters each block, and the statistics of the inputs of its matrices.

    Args:
        calibrator: makes observers.
        store: where hidden states wait.
    """

    calibrator: Calibrator
    store: "HiddenStates"
    statistics: dict[str, LanguageStatistics] = field(default_factory=dict)
    kept: dict[tuple[int, int], BlockCall] = field(default_factory=dict)
    phase: ClassVar[str] = "damage"
    hooks: ExitStack = field(default_factory=ExitStack)
    _observer: Observer | None = None

    def enter(self, block: Block, arrivals: Arrivals, lockstep: Lockstep[Batch]) -> None:
        """Keep what the batches wait with, and watch the matrices while they pass."""
        for arrival in arrivals:
            lockstep.fetch(arrival)
            states = hidden_states(arrival.args, arrival.kwargs)
            self.store.put((block.index, arrival.index), states.clone())
            args, kwargs = replaced(arrival.args, arrival.kwargs, states, None)
            self.kept[block.index, arrival.index] = BlockCall(args, kwargs)
            lockstep.offload(arrival)
        if self.calibrator.needs:
            self._observer = self.calibrator.observer(block.matrices, lockstep)
            self.hooks.enter_context(self._observer.watching())

    def leave(self, block: Block) -> Decision:
        """Keep the statistics."""
        if self._observer is not None:
            self.hooks.close()
            self.statistics |= self.calibrator.complete(self._observer, block.matrices)
            self.calibrator.check()
            self._observer = None
        return Decision({}, {})

    def restore(self, block: Block, decision: Decision) -> None:
        """Never called: the pass is not resumed half-way."""
        raise NotImplementedError


class HiddenStates:
    """Tensors by (block, batch), where an offloading puts them.

    Args:
        offloading: None leaves them where they are.
    """

    def __init__(self, offloading: ActivationOffloading | None):
        self._offloading = offloading
        self._held: dict[tuple[int, ...], Tensor] = {}
        self._places: dict[tuple[int, ...], int] = {}
        self._free: list[int] = []

    def put(self, key: tuple[int, ...], values: Tensor) -> None:
        """Keep a tensor that nobody else holds."""
        self._held[key] = values
        if self._offloading is not None:
            # A place that was left is used again, as what was kept there need not be removed.
            place = self._places[key] = self._free.pop() if self._free else len(self._places)
            self._offloading.offload(place, [values])

    def take(self, key: tuple[int, ...]) -> Tensor:
        """Give a tensor back, and forget it."""
        if self._offloading is not None:
            place = self._places.pop(key)
            self._offloading.fetch(place)
            self._free.append(place)
        return self._held.pop(key)


@dataclass
class GradientPass:
    """Measures the damage of one dense model.

    Args:
        model: in evaluation mode.
        blocks: of the model.
        batches: of this process.
        draws: the randomness of each of them.
        criterion: says what would be removed.
        pattern: which weights compete.
        levels: sparsities.
        apart: leave out what two weights do together.
        by_row: the weight of a sequence of each language in the damage of single rows, where that is asked for too.
        calibrator: of what the criterion needs of the inputs.
        weights: where blocks are.
        step: called at each block, in the forward and in the backward pass.
        offloading: where waiting hidden states are, or None.
        store: where those between blocks are kept for the backward pass.
    """

    model: nn.Module
    blocks: Sequence[Block]
    batches: Sequence[Batch]
    draws: Sequence[Draws]
    criterion: Criterion
    pattern: Pattern
    levels: tuple[float, ...]
    apart: bool
    by_row: Float[Tensor, " L"] | None
    calibrator: Calibrator
    weights: Weights
    step: Callable[[], object]
    offloading: ActivationOffloading | None
    store: HiddenStates
    _other_outputs: tuple[Any, ...] | None = None

    @torch.no_grad()
    def run(self) -> tuple[Float[Tensor, "S R M K"], Float[Tensor, " rows"]]:
        """Return `⟨g_m, Δ_m(s)⟩²` of each sequence of this process, draw, matrix and level, on the CPU.

        With each weight apart it is `Σ_ij (g_ij Δ_ij)²`. The second is the damage of each row of all matrices, in the
        order of the model, a weighted sum over sequences and draws; without `by_row` there are none.

        Raises:
            CalibrationError: inputs or gradients are not finite.
        """
        with _frozen(self.model), in_two_steps(self.blocks), repeatable(input_device(self.model)):
            visitor = BlockInputs(self.calibrator, self.store)
            self._forward(visitor)
            self._gradients_of_labels()
            found, rows = self._backward(visitor)
            return found if self.apart else found.square(), rows

    def _forward(self, visitor: BlockInputs) -> None:
        last = self.blocks[-1]
        walk = Walk(
            lambda batch: forward(self.model, batch.tokens),
            self.blocks,
            self.batches,
            self.weights,
            self.step,
            self.offloading,
        )
        index = iter(range(len(self.batches)))

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            self._other_outputs = None if isinstance(output, Tensor) else tuple(output[1:])
            self.store.put((len(self.blocks), next(index)), _first(output).clone())

        hook = last.module.register_forward_hook(keep)
        try:
            walk.run(visitor)
        finally:
            hook.remove()

    def _gradients_of_labels(self) -> None:
        """Replace what leaves the last block by the gradients there of the logits of drawn tokens."""
        head = OutputHead.of(self.model)
        for index, (batch, draws) in enumerate(zip(self.batches, self.draws, strict=True)):
            states = self.store.take((len(self.blocks), index))
            if index == 0 and head is not None and not self._is_right(head, batch, states):
                head = None
            gradients = self._of_logits(head, batch, draws, states)
            for draw, gradient in enumerate(gradients):
                self.store.put((len(self.blocks), index, draw), gradient)

    def _is_right(self, head: OutputHead, batch: Batch, states: Float[Tensor, "B T D"]) -> bool:
        tokens = batch.tokens[:1, :PROBED]
        with self._answering(states[:1, :PROBED]):
            hidden = _last_hidden(forward(self.model, tokens))
            own = _logits(self.model, tokens)
        return hidden is not None and agrees(head, hidden[0, :-1], own[0, :-1], tokens[0, 1:])

    def _of_logits(
        self, head: OutputHead | None, batch: Batch, draws: Draws, states: Float[Tensor, "B T D"]
    ) -> Iterator[Float[Tensor, "B T D"]]:
        """Yield, for each draw, the gradient of `Σ_t z(y_t) − z(y'_t)`, which is that of the log-probabilities."""
        leaf = states.requires_grad_()
        rows = torch.arange(len(batch.tokens))[:, None].expand_as(draws.positions)
        with torch.enable_grad(), self._answering(leaf):
            hidden = _last_hidden(forward(self.model, batch.tokens)) if head is not None else None
            logits = _logits(self.model, batch.tokens)[rows, draws.positions] if hidden is None else None
        if head is None or hidden is None:
            assert logits is not None
            yield from _by_own_head(logits, leaf, draws)
            return
        rows, positions = (sent(each, hidden.device) for each in (rows, draws.positions))
        at = hidden.detach()[rows, positions].flatten(0, 1).to(head.weight.device)
        uniforms = sent(draws.uniforms.flatten(2), at.device)
        tokens = draw_tokens(at, head, uniforms.flatten(0, 1)).view(uniforms.shape)
        for first, second in tokens:
            difference = head.gradient(at, first) - head.gradient(at, second)
            gradient = torch.zeros_like(hidden)
            gradient[rows, positions] = difference.view(*rows.shape, -1).to(hidden)
            yield torch.autograd.grad(hidden, leaf, gradient, retain_graph=True)[0]

    @contextmanager
    def _answering(self, states: Tensor) -> Iterator[None]:
        """Have all blocks return `states` without computing anything, in the form in which the model wants them."""

        def answer(*args: Any, **kwargs: Any) -> Any:
            return states if self._other_outputs is None else (states, *self._other_outputs)

        before = {block.module: block.module.__dict__.get("forward") for block in self.blocks}
        for block in self.blocks:
            block.module.__dict__["forward"] = answer
        try:
            yield
        finally:
            for module, own in before.items():
                module.__dict__.pop("forward")
                if own is not None:
                    module.__dict__["forward"] = own

    def _backward(self, visitor: BlockInputs) -> tuple[Float[Tensor, "S R M K"], Float[Tensor, " rows"]]:
        found: list[Tensor] = []
        by_row = [torch.empty(0, dtype=torch.float64)]
        for block in reversed(self.blocks):
            self.step()
            self.weights.fetch(block)
            codes = {
                matrix.name: removal_levels(
                    matrix.weight, visitor.statistics.get(matrix.name), self.criterion, self.pattern, self.levels
                )
                for matrix in block.matrices
            }
            for matrix in block.matrices:
                visitor.statistics.pop(matrix.name, None)
            recorder = Recorder(block.matrices, codes, len(self.levels), apart=self.apart, by_row=self.by_row)
            parts = [
                self._backward_through(block, visitor.kept.pop((block.index, index)), index, batch, recorder)
                for index, batch in enumerate(self.batches)
            ]
            together = torch.cat(parts)
            rows = [recorder.rows[matrix.name].to(together.device) for matrix in block.matrices if recorder.rows]
            # One transfer a block.
            values = torch.cat([together.flatten(), *rows]).cpu()
            found.append(values[: together.numel()].view(together.shape))
            by_row.append(values[together.numel() :])
            self.weights.release(block)
            if not torch.isfinite(values).all():
                raise CalibrationError(f"gradients in {block.name} are not finite; try model.dtype=float32")
        return torch.cat(found[::-1], dim=2), torch.cat(by_row[::-1])

    def _backward_through(
        self, block: Block, kept: BlockCall, index: int, batch: Batch, recorder: Recorder
    ) -> Float[Tensor, "B R M K"]:
        """Take the gradients of one batch from behind a block to before it; return the products in the block."""
        states = self.store.take((block.index, index)).requires_grad_()
        args, kwargs = replaced(kept.args, kept.kwargs, None, states)
        draws = self.draws[index].uniforms.shape[0]
        products = []
        with recorder.watching(batch):
            with torch.enable_grad():
                output = _first(block.module(*args, **kwargs))
            for draw in range(draws):
                recorder.begin()
                behind = self.store.take((block.index + 1, index, draw)).to(output.device)
                (before,) = torch.autograd.grad(output, states, behind, retain_graph=draw + 1 < draws)
                if block.index > 0:
                    self.store.put((block.index, index, draw), before)
                home = output.device
                products.append(torch.stack([recorder.products[m.name].to(home) for m in block.matrices], dim=1))
        return torch.stack(products, dim=1)


def hidden_states(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Float[Tensor, "B T D"]:
    """Return the hidden states among what a block is called with: the first tensor of three dimensions."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim() == 3:
            return value
    raise CalibrationError("a block is called without hidden states of sequences × tokens × features")


def replaced(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], old: Tensor | None, new: Tensor | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what a block is called with, with one value in place of another."""
    marked: Any = _HIDDEN_STATES if old is None else old
    given: Any = _HIDDEN_STATES if new is None else new
    return (
        tuple(given if value is marked else value for value in args),
        {name: given if value is marked else value for name, value in kwargs.items()},
    )


_HIDDEN_STATES = object()
"""Stands where hidden states were."""


def _by_own_head(
    logits: Float[Tensor, "B P V"], leaf: Float[Tensor, "B T D"], draws: Draws
) -> Iterator[Float[Tensor, "B T D"]]:
    """Yield the same by the model's own logits, where its head is not understood."""
    up_to = logits.detach().double().softmax(dim=2).cumsum(dim=2)
    for pair in draws.uniforms.to(logits.device):
        wanted = (pair * up_to[..., -1]).movedim(0, 2).contiguous()
        tokens = torch.searchsorted(up_to, wanted, right=True).clamp(max=logits.shape[2] - 1)
        with torch.enable_grad():
            first, second = logits.gather(2, tokens).sum(dim=(0, 1))
            difference = first - second
        yield torch.autograd.grad(difference, leaf, retain_graph=True)[0]


def _last_hidden(output: Any) -> Tensor | None:
    """Return the hidden states that a model without its head ends in."""
    return getattr(output, "last_hidden_state", None)


def _logits(model: Any, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
    output = model(input_ids=tokens, use_cache=False)
    logits: Tensor = getattr(output, "logits", output)
    return logits


def _first(output: Any) -> Tensor:
    """Return the hidden states that a block returns, by themselves or with others."""
    states: Tensor = output if isinstance(output, Tensor) else output[0]
    return states


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Ask for no gradients of weights."""
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
