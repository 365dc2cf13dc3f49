"""Collects activation statistics and outputs of each block before and after pruning.

Before: one pass over the calibration text for profiles, masks and neurons of each language, and one over a sample of
it that keeps what every block returns. After: two passes over the sample, one with every block on its dense inputs and
one on the inputs that the pruned blocks before it make.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Gt, Lt
from jaxtyping import Float, Int
from torch import Tensor, nn

from mwanda.calibration import Batch, CalibrationSet
from mwanda.criteria import Criterion
from mwanda.criteria.base import ColumnWeighted
from mwanda.criteria.wanda import Wanda
from mwanda.inside.energy import Energy
from mwanda.inside.feed_forward import FeedForward, feed_forwards, positive_per_sequence
from mwanda.inside.neurons import LanguageNeurons, language_neurons
from mwanda.inside.overlap import rank_correlation, shared_and_either
from mwanda.inside.tables import Findings, Measured
from mwanda.models import Block, Matrix, blocks_of
from mwanda.models.forward import forward, input_device
from mwanda.models.streaming import fetched_on_call
from mwanda.models.weights import Resident, Weights, visit
from mwanda.patterns import Pattern, removed
from mwanda.pruner.lockstep import Lockstep
from mwanda.pruner.observe import Observer, by_sequence
from mwanda.pruner.walk import Arrivals, Decision, Visitor, Walk
from mwanda.statistics import LanguageStatistics, Needs, language_root_mean_square
from mwanda.system.progress import Progress, Silent


Hook = Callable[[Block, int, Batch, Tensor, Tensor], Tensor | None]
"""Told block, number of the batch, batch, hidden states before and after; what it returns takes their place."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inside:
    """What pruning does to each language in each block.

    Args:
        tokens: of each language's calibration text on which outputs of blocks are compared. What the dense blocks
            return for them waits in memory: tokens × languages × blocks × hidden size × bytes of the dtype.
        rows: of each matrix, evenly spaced, on which the masks of calibration languages are compared.
        neuron_share: of all neurons, those with the lowest LAPE, of which language-specific ones are made.
        neuron_quantile: of all activation probabilities, above which a neuron belongs to a language.
        batch_size: sequences in a forward pass.
    """

    tokens: Annotated[int, Gt(1)] = 128
    rows: Annotated[int, Gt(0)] = 64
    neuron_share: Annotated[float, Gt(0), Lt(1)] = 0.01
    neuron_quantile: Annotated[float, Gt(0), Lt(1)] = 0.95
    batch_size: Annotated[int, Gt(0)] = 8

    @torch.no_grad()
    def observe(
        self,
        model: nn.Module,
        calibration: CalibrationSet,
        criterion: Criterion,
        pattern: Pattern,
        sparsity: float,
        weights: Weights | None = None,
        progress: Progress | None = None,
    ) -> "Observation":
        """Look into the dense model.

        Args:
            model: in evaluation mode, not yet pruned.
            calibration: text by language.
            criterion: by which each language alone would choose its mask; Wanda where the run's own criterion does not
                look at inputs or needs more of them than sums per language.
            pattern: of the masks.
            sparsity: of the masks, in every block.
            weights: where blocks are kept; None when the whole model is in memory.
            progress: shows how far it has come.
        """
        weights, progress, blocks = weights or Resident(), progress or Silent(), blocks_of(model)
        by_language = (
            criterion
            if criterion.needs and Needs.SECOND_MOMENTS not in criterion.needs and criterion.group == "row"
            else Wanda()
        )
        visitor = _Statistics(self, calibration.codes, by_language, pattern, sparsity)
        bar = iter(progress.track(blocks, "look inside", unit="blocks"))
        batches = calibration.batches(self.batch_size, input_device(model))
        Walk(lambda batch: forward(model, batch.tokens), blocks, batches, weights, lambda: next(bar, None)).run(visitor)
        next(bar, None)
        sample = _sample(calibration, self.tokens)
        observation = Observation(self, model, blocks, weights, sample, type(by_language).__name__.lower(), visitor)
        observation.remember()
        return observation


@dataclass
class Observation:
    """Observations of the dense model, to be completed when it is pruned.

    Args:
        settings: of the measurement.
        model: the same object before and after.
        blocks: of the model.
        weights: where they are.
        sample: the text on which outputs of blocks are compared.
        criterion: the name of the one that chose the masks of single languages.
        statistics: of the calibration text.
    """

    settings: Inside
    model: nn.Module
    blocks: list[Block]
    weights: Weights
    sample: CalibrationSet
    criterion: str
    statistics: "_Statistics"
    _outputs: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def remember(self) -> None:
        """Keep what every dense block returns for the sample."""

        def keep(block: Block, number: int, batch: Batch, before: Tensor, after: Tensor) -> None:
            self._outputs[block.index, number] = after.to("cpu", copy=True)

        self._pass(keep)

    @torch.no_grad()
    def finish(self) -> Findings:
        """Look into the pruned model and return everything that was found; the sample's outputs are let go."""
        languages = len(self.sample.codes)
        lost = [Energy.zeros(languages) for _ in self.blocks]
        drift = [Energy.zeros(languages) for _ in self.blocks]

        # The first token of a sequence is its start token, the same in all languages; many models gather activations
        # there that outweigh everything else.
        def alone(block: Block, number: int, batch: Batch, before: Tensor, after: Tensor) -> Tensor:
            dense = self._outputs[block.index, number].to(after.device)
            lost[block.index].add((after - dense)[:, 1:], (dense - before)[:, 1:], batch.languages)
            return dense  # so that the next block gets its dense inputs

        def together(block: Block, number: int, batch: Batch, before: Tensor, after: Tensor) -> None:
            dense = self._outputs[block.index, number].to(after.device)
            drift[block.index].add((after - dense)[:, 1:], dense[:, 1:], batch.languages)

        self._pass(alone)
        self._pass(together)
        self._outputs.clear()
        zeros = {
            part.down.name: part.zeros_per_neuron()
            for block in visit(self.weights, self.blocks)
            for part in self.statistics.parts[block.index]
        }
        return self._findings(lost, drift, zeros)

    def _pass(self, hook: Hook) -> None:
        batches = self.sample.batches(self.settings.batch_size, input_device(self.model))
        resident = isinstance(self.weights, Resident)
        with nullcontext() if resident else fetched_on_call(self.weights, self.blocks):
            for number, batch in enumerate(batches):
                with _hooked(self.blocks, number, batch, hook):
                    forward(self.model, batch.tokens)

    def _findings(
        self, lost: Sequence[Energy], drift: Sequence[Energy], zeros: Mapping[str, Int[Tensor, " N"]]
    ) -> Findings:
        seen = self.statistics
        places, columns = [], []
        before: dict[str, Tensor] = {}
        for block in self.blocks:
            for part in seen.parts[block.index]:
                name = part.down.name
                places += [(block.index, name, number) for number in range(part.neurons)]
                columns.append(seen.probabilities[name])
                before[name] = seen.zeros[name]
        found: LanguageNeurons | None = None
        if columns:
            found = language_neurons(
                torch.cat(columns, dim=1), self.settings.neuron_share, self.settings.neuron_quantile
            )
        else:
            logger.warning("inside: no feed-forward part has a name that is known, so that no neurons are listed")
        sizes = {part.down.name: part.weights_per_neuron() for parts in seen.parts.values() for part in parts}
        return Findings(
            codes=self.sample.codes,
            blocks=[block.name for block in self.blocks],
            criterion=self.criterion,
            tokens=self.sample.tokens_per_language[self.sample.codes[0]],
            energy=[Measured(one.share(), other.share()) for one, other in zip(lost, drift, strict=True)],
            correlations=[seen.correlations[block.index] for block in self.blocks],
            overlaps=[seen.overlaps[block.index] for block in self.blocks],
            neurons=found,
            places=places,
            probabilities=torch.cat(columns, dim=1) if columns else torch.zeros(len(self.sample.codes), 0),
            weights_per_neuron=sizes,
            zeros_before=before,
            zeros=zeros,
        )


@dataclass
class _Statistics(Visitor):
    """Visits dense blocks, and keeps of the statistics of their inputs only what they come to."""

    settings: Inside
    codes: Sequence[str]
    criterion: Criterion
    pattern: Pattern
    sparsity: float
    correlations: dict[int, Float[Tensor, "L L"]] = field(default_factory=dict)
    overlaps: dict[int, Float[Tensor, "L L"]] = field(default_factory=dict)
    probabilities: dict[str, Float[Tensor, "L N"]] = field(default_factory=dict)
    zeros: dict[str, Int[Tensor, " N"]] = field(default_factory=dict)
    parts: dict[int, list[FeedForward]] = field(default_factory=dict)
    phase: ClassVar[str] = "inside"
    changes_weights: ClassVar[bool] = False
    _hooks: ExitStack = field(default_factory=ExitStack)
    _observer: Observer | None = None
    _active: dict[str, Int[Tensor, "L N"]] = field(default_factory=dict)

    def enter(self, block: Block, arrivals: Arrivals, lockstep: Lockstep[Batch]) -> None:
        """Watch the block's matrices and gates while the batches pass."""
        self.parts[block.index] = feed_forwards(block)
        self._active = {}
        self._observer = Observer(block.matrices, len(self.codes), Needs.COUNTS, lambda: lockstep.batch)
        self._hooks.enter_context(self._observer.watching())
        for part in self.parts[block.index]:
            if part.gate is not None:
                self._hooks.enter_context(self._counting(part, part.gate, lockstep))

    def leave(self, block: Block) -> Decision:
        """Reduce what was seen."""
        assert self._observer is not None
        self._hooks.close()
        statistics, self._observer = self._observer.statistics, None
        profiles = [language_root_mean_square(statistics[matrix.name]) for matrix in block.matrices]
        self.correlations[block.index] = torch.stack([rank_correlation(each) for each in profiles]).nanmean(dim=0)
        shared, either = torch.zeros(2, len(self.codes), len(self.codes), dtype=torch.float64)
        for matrix in block.matrices:
            for total, more in zip((shared, either), self._compare_masks(matrix, statistics[matrix.name]), strict=True):
                total += more
        self.overlaps[block.index] = shared / either
        for part in self.parts[block.index]:
            name = part.down.name
            of_inputs = statistics[name]
            assert of_inputs.positive is not None
            active = self._active.get(name, of_inputs.positive)
            self.probabilities[name] = (active / of_inputs.tokens.clamp(min=1)[:, None]).float().cpu()
            self.zeros[name] = part.zeros_per_neuron()
        return Decision({}, {})

    def restore(self, block: Block, decision: Decision) -> None:
        """Never called: this pass keeps no checkpoint."""

    @contextmanager
    def _counting(self, part: FeedForward, gate: nn.Module, lockstep: Lockstep[Batch]) -> Iterator[None]:
        """Count the tokens on which the gate lets each neuron be active."""
        counts = torch.zeros(len(self.codes), part.neurons, dtype=torch.int64, device=part.down.weight.device)
        self._active[part.down.name] = counts

        def count(module: nn.Module, args: Any, output: Tensor) -> None:
            batch = lockstep.batch
            if batch is not None:
                positive = positive_per_sequence(by_sequence(output, batch.tokens), part.neurons)
                counts.index_add_(0, batch.languages.to(counts.device), positive.to(counts.device))

        hook = gate.register_forward_hook(count)
        try:
            yield
        finally:
            hook.remove()

    def _compare_masks(
        self, matrix: Matrix, statistics: LanguageStatistics
    ) -> tuple[Float[Tensor, "L L"], Float[Tensor, "L L"]]:
        """Return what the masks of every two languages share, and what either keeps, in some rows of a matrix.

        Languages without a token here (an expert need not meet every one) share nothing and keep nothing.
        """
        weight = matrix.weight
        count = min(self.settings.rows, weight.shape[0])
        rows = torch.linspace(0, weight.shape[0] - 1, count, device=weight.device).round().long()
        chosen = weight[rows]
        empty = self.pattern.groups(chosen, "row") == 0
        prune_per_group = self.pattern.quota(empty.sum(dim=1).cpu(), empty.shape[1], self.sparsity).prune_per_group
        masks = torch.zeros(len(self.codes), count * weight.shape[1], dtype=torch.bool, device=weight.device)
        for language in torch.nonzero(statistics.tokens).flatten().tolist():
            alone = LanguageStatistics(
                *(part[language : language + 1] if part is not None else None for part in statistics.tensors()[:4])  # type: ignore[arg-type]
            )
            by_rows = isinstance(self.criterion, ColumnWeighted)  # others compare a weight with those of other rows
            scores = self.criterion.score(chosen, alone) if by_rows else self.criterion.score(weight, alone)[rows]
            scores = scores.masked_fill(chosen == 0, -1)
            masks[language] = ~removed(self.pattern, scores, prune_per_group, "row").flatten()
        return shared_and_either(masks)


@contextmanager
def _hooked(blocks: Sequence[Block], number: int, batch: Batch, hook: Hook) -> Iterator[None]:
    """Have `hook` told what each block gets and returns."""

    def tell(block: Block) -> Callable[..., Any]:
        def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            before = args[0] if args else kwargs["hidden_states"]
            plain = isinstance(output, Tensor)
            replaced = hook(block, number, batch, before, output if plain else output[0])
            if replaced is None:
                return None
            return replaced if plain else (replaced, *output[1:])

        return after

    hooks = [block.module.register_forward_hook(tell(block), with_kwargs=True) for block in blocks]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def _sample(calibration: CalibrationSet, tokens: int) -> CalibrationSet:
    """Return the first `tokens` tokens of each language, or as many as there are."""
    length = min(tokens, calibration.length)
    parts = tuple(part[: -(-tokens // length), :length] for part in calibration.sequences)
    return CalibrationSet(calibration.codes, parts, calibration.packing)
