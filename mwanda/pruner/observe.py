"""Collects language statistics from the inputs of linear layers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from mwanda.calibration import Batch
from mwanda.errors import CalibrationError
from mwanda.models import Matrix
from mwanda.statistics import LanguageStatistics, SequenceSums


class Observer:
    """Statistics of several matrices; an input that several matrices share (query, key, value) is reduced once."""

    def __init__(self, matrices: Sequence[Matrix], languages: int):
        self.statistics = {
            matrix.name: LanguageStatistics.zeros(languages, matrix.shape[1], matrix.weight.device)
            for matrix in matrices
        }
        self._names: Mapping[nn.Module, str] = {matrix.module: matrix.name for matrix in matrices}
        self._batch: Batch | None = None
        self._last: tuple[Tensor, SequenceSums] | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hook the matrices for the time of the block."""
        hooks = [module.register_forward_pre_hook(self._see) for module in self._names]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def reading(self, batch: Batch) -> Iterator[None]:
        """Say which batch the next forward pass is about."""
        self._batch = batch
        try:
            yield
        finally:
            self._batch = self._last = None

    def add(self, name: str, inputs: Tensor, batch: Batch) -> None:
        """Add the inputs that `batch` brings to the matrix `name`."""
        if self._last is None or self._last[0] is not inputs:
            self._last = (inputs, SequenceSums.of(by_sequence(inputs, batch.tokens)))
        self.statistics[name].add(self._last[1], batch.languages)

    def _see(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if self._batch is not None:
            self.add(self._names[module], args[0], self._batch)


def by_sequence(inputs: Tensor, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T I"]:
    """Return `inputs` as sequences × tokens × features, also from families that flatten the first two.

    Raises:
        CalibrationError: the inputs are not one vector per token.
    """
    if inputs.numel() != tokens.numel() * inputs.shape[-1]:
        raise CalibrationError(f"a linear layer got inputs of shape {tuple(inputs.shape)} for {tuple(tokens.shape)}")
    return inputs.reshape(*tokens.shape, inputs.shape[-1])
