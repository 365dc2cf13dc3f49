"""Collects language statistics from the inputs of linear layers, and of the experts of a mixture."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mwanda.calibration import Batch
from mwanda.errors import CalibrationError
from mwanda.models import Matrix
from mwanda.models.family import EXPERT_PARAMETERS
from mwanda.statistics import LanguageStatistics, Needs, SequenceSums


class Observer:
    """Statistics of several matrices; an input that several matrices share (query, key, value) is reduced once.

    An expert's statistics come from the tokens that are routed to it.

    Args:
        matrices: to be watched.
        languages: how many there are.
        needs: what of the inputs is asked for.
        current: which batch is on its way, when nobody says so by `reading`.
    """

    def __init__(
        self,
        matrices: Sequence[Matrix],
        languages: int,
        needs: Needs = "counts",
        current: Callable[[], Batch | None] = lambda: None,
    ):
        self.statistics = {
            matrix.name: LanguageStatistics.zeros(languages, matrix.shape[1], matrix.weight.device, needs)
            for matrix in matrices
        }
        self._needs, self._languages, self._current = needs, languages, current
        self._names = {matrix.module: matrix.name for matrix in matrices if matrix.expert is None}
        self._experts: dict[nn.Module, list[Matrix]] = {}
        for matrix in matrices:
            if matrix.expert is not None:
                self._experts.setdefault(matrix.module, []).append(matrix)
        self._batch: Batch | None = None
        self._last: tuple[Tensor, SequenceSums] | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hook the matrices for the time of the block."""
        hooks = [module.register_forward_pre_hook(self._see) for module in self._names]
        hooks += [module.register_forward_pre_hook(self._see_experts) for module in self._experts]
        try:
            yield
        finally:
            self._last = None
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
            self._last = (inputs, SequenceSums.of(by_sequence(inputs, batch.tokens), self._needs))
        self.statistics[name].add(self._last[1], batch.languages)

    def add_experts(self, module: nn.Module, args: tuple[Any, ...], batch: Batch) -> None:
        """Add what the experts of `module` multiply when it is called with `args`.

        The first matrix of an expert multiplies the hidden states that are sent to it. What the second multiplies is
        made inside: for that the experts run once more.

        Raises:
            CalibrationError: the module is not called as transformers calls experts.
        """
        if len(args) != 3 or args[0].shape[0] != batch.tokens.numel() or args[1].dim() != 2:
            raise CalibrationError(f"{type(module).__name__} is not called with hidden states and their routing")
        hidden, chosen, _ = args
        of_tokens = batch.languages.to(hidden.device).repeat_interleave(batch.tokens.shape[1])

        def record(matrix: Matrix, inputs: Tensor, tokens: Int[Tensor, " N"]) -> None:
            # Each token counts as a sequence of one.
            self.statistics[matrix.name].add(SequenceSums.of(inputs[:, None], self._needs), of_tokens[tokens])

        def record_second(matrix: Matrix, inputs: Tensor) -> None:
            record(matrix, inputs, _sent_to(chosen, matrix))

        first, second = ([m for m in self._experts[module] if m.parameter == name] for name in EXPERT_PARAMETERS)
        for matrix in first:
            tokens = _sent_to(chosen, matrix)
            record(matrix, hidden[tokens], tokens)
        if second:
            with _plain_experts(module), _Listening(second, record_second):
                module.forward(*args)

    def _see(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        batch = self._batch or self._current()
        if batch is not None:
            self.add(self._names[module], args[0], batch)

    def _see_experts(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        batch = self._batch or self._current()
        if batch is not None:
            self.add_experts(module, args, batch)


def by_sequence(inputs: Tensor, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T I"]:
    """Return `inputs` as sequences × tokens × features, also from families that flatten the first two.

    Raises:
        CalibrationError: the inputs are not one vector per token.
    """
    if inputs.numel() != tokens.numel() * inputs.shape[-1]:
        raise CalibrationError(f"a linear layer got inputs of shape {tuple(inputs.shape)} for {tuple(tokens.shape)}")
    return inputs.reshape(*tokens.shape, inputs.shape[-1])


def pool_rare_experts(
    statistics: dict[str, LanguageStatistics], matrices: Sequence[Matrix], fewest_tokens: int
) -> list[str]:
    """Give an expert that saw fewer than `fewest_tokens` tokens the statistics of all experts of its parameter.

    Returns the names of the matrices concerned. So few inputs say more about the calibration text than about the
    expert; what its neighbours see comes from the same hidden states.
    """
    siblings: dict[tuple[nn.Module, str], list[str]] = {}
    for matrix in matrices:
        if matrix.expert is not None and matrix.name in statistics:
            siblings.setdefault((matrix.module, matrix.parameter), []).append(matrix.name)
    pooled = []
    for names in siblings.values():
        counts = torch.stack([statistics[name].tokens.sum() for name in names]).tolist()
        rare = [name for name, count in zip(names, counts, strict=True) if count < fewest_tokens]
        if rare:
            total = LanguageStatistics.total(statistics[name] for name in names)
            statistics.update(dict.fromkeys(rare, total))
            pooled += rare
    return pooled


def _sent_to(chosen: Int[Tensor, "N k"], matrix: Matrix) -> Int[Tensor, " M"]:
    """Return the tokens that an expert is chosen for, in the order in which it multiplies them: by choice, by token."""
    assert matrix.expert is not None
    return torch.where(chosen.eq(matrix.expert).T)[1]


class _Listening(TorchFunctionMode):
    """Reports the input of every product with one of the given matrices."""

    def __init__(self, matrices: Sequence[Matrix], record: Callable[[Matrix, Tensor], None]):
        super().__init__()
        self._matrices = {_place(matrix.weight): matrix for matrix in matrices}
        self._record = record

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is nn.functional.linear:
            matrix = self._matrices.get(_place(args[1]))
            if matrix is not None:
                self._record(matrix, args[0])
        return func(*args, **(kwargs or {}))


def _place(weight: Tensor) -> tuple[int, int, torch.Size]:
    return weight.untyped_storage().data_ptr(), int(weight.storage_offset()), weight.shape


@contextmanager
def _plain_experts(module: nn.Module) -> Iterator[None]:
    """Have the experts multiplied one after the other, not in one fused product in which inputs cannot be seen."""
    config: Any = module.config
    before = config._experts_implementation
    config._experts_implementation = "eager"
    try:
        yield
    finally:
        config._experts_implementation = before
