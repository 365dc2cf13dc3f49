"""Takes the calibration batches of this process through one model."""

from dataclasses import dataclass, field

from torch import nn

from mwanda.calibration import Batch, CalibrationSet
from mwanda.models import Block, blocks_of
from mwanda.models.forward import forward, input_device
from mwanda.pruner.batches import batches_of, sequences_per_batch
from mwanda.pruner.offloading import Activations, offloading_of
from mwanda.pruner.runtime import Runtime
from mwanda.pruner.visitors import Calibrator, Seconds
from mwanda.pruner.walk import Visitor, Walk
from mwanda.statistics import Needs


@dataclass(frozen=True)
class PassSettings:
    """What of the pruner's settings a pass depends on.

    Args:
        batch_size: sequences of the calibration set in a forward pass.
        expert_tokens: an expert that saw fewer is judged by all experts of its parameter.
        activations: where hidden states wait.
    """

    batch_size: int
    expert_tokens: int
    activations: Activations


@dataclass
class Passes:
    """One dense or half-pruned model and what it is calibrated on.

    Args:
        model: in evaluation mode.
        blocks: of the model.
        calibration: all sequences.
        settings: see above.
        runtime: what passes are carried out with.
        seconds: the clock.
    """

    model: nn.Module
    blocks: list[Block]
    calibration: CalibrationSet
    settings: PassSettings
    runtime: Runtime
    seconds: Seconds = field(default_factory=Seconds)

    @classmethod
    def of(
        cls, model: nn.Module, calibration: CalibrationSet, settings: PassSettings, runtime: Runtime | None = None
    ) -> "Passes":
        """Return passes through all blocks of a model."""
        return cls(model, blocks_of(model), calibration, settings, runtime or Runtime())

    def calibrator(self, needs: Needs, calibration: CalibrationSet | None = None) -> Calibrator:
        """Return what makes observers that take down what is needed."""
        chosen = calibration or self.calibration
        world, fewest = self.runtime.world, self.settings.expert_tokens
        tokens = sum(chosen.tokens_per_language.values())
        return Calibrator(len(chosen.codes), needs, fewest, tokens, world, self.seconds, chosen.weights)

    def text(self, fraction: float) -> CalibrationSet:
        """Return the calibration set, or a fraction of each language's tokens."""
        return self.calibration if fraction == 1 else self.calibration.part(fraction)

    def walk(self, visitor: Visitor, title: str, fraction: float, copies: int = 1) -> None:
        """Take a fraction of each language's tokens from block to block.

        Args:
            visitor: says what happens there.
            title: of the progress.
            fraction: of the tokens.
            copies: how often each batch is there, for visitors that look at two models beside each other.
        """
        chosen = self.text(fraction)
        bar = iter(self.runtime.progress.track(self.blocks, title, unit="blocks"))
        with offloading_of(self.settings.activations, self.runtime.scratch) as offloading:
            walk = Walk(
                lambda batch: forward(self.model, batch.tokens),
                self.blocks,
                self.batches(chosen) * copies,
                self.runtime.weights,
                lambda: next(bar, None),
                offloading,
                self.runtime.checkpoint,
            )
            walk.run(visitor)
        next(bar, None)

    def batches(self, chosen: CalibrationSet) -> list[Batch]:
        """Return this process's batches of a part of the calibration set."""
        return batches_of(chosen, self.sequences_per_batch(chosen), self.runtime.world, input_device(self.model))

    def sequences_per_batch(self, chosen: CalibrationSet) -> int:
        """Return how many sequences of a part of the calibration set a batch holds."""
        return sequences_per_batch(chosen, self.calibration.length, self.settings.batch_size, self.runtime.world)
