"""Collects language statistics from the inputs of linear layers, and of the experts of a mixture."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mwanda.calibration import Batch
from mwanda.errors import CalibrationError
from mwanda.models import Matrix
from mwanda.pruner.experts import Between, in_order_of_experts, place_of
from mwanda.statistics import UNIFORM, LanguageStatistics, LanguageWeights, Needs, SequenceSums
from mwanda.statistics.experts import ExpertStatistics, agrees
from mwanda.statistics.language import unit_tokens


class Observer:
    """Statistics of several matrices; an input that several matrices share (query, key, value) is reduced once.

    An expert's statistics come from the tokens that are routed to it. Its second matrix is seen `in_two_steps` only.

    Args:
        matrices: to be watched.
        languages: how many there are.
        needs: what of the inputs is asked for.
        current: which batch is running, when nobody says so by `reading`.
        weighting: how much each language counts.
        token_weights: by matrix, what a token of each language weighs in the second moments; one where none are given.
    """

    def __init__(
        self,
        matrices: Sequence[Matrix],
        languages: int,
        needs: Needs = Needs.COUNTS,
        current: Callable[[], Batch | None] = lambda: None,
        weighting: LanguageWeights = UNIFORM,
        token_weights: Mapping[str, Float[Tensor, " L"]] | None = None,
    ):
        self.statistics = {
            matrix.name: LanguageStatistics.zeros(languages, matrix.shape[1], matrix.weight.device, needs, weighting)
            for matrix in matrices
        }
        self._needs, self._current, self._weights = needs, current, token_weights or {}
        self._unit_tokens, self._moment_share = weighting.unit_tokens, weighting.moment_share
        self._matrices: dict[nn.Module, list[Matrix]] = {}
        for matrix in matrices:
            self._matrices.setdefault(place_of(matrix), []).append(matrix)
        self._together = {
            place: self._stacked(own, languages, weighting)
            for place, own in self._matrices.items()
            if self._are_added_together(place, own)
        }
        self._batch: Batch | None = None
        self._dense: Mapping[nn.Module, Tensor] = {}
        self._last: tuple[Tensor, SequenceSums] | None = None

    def _are_added_together(self, place: nn.Module, matrices: Sequence[Matrix]) -> bool:
        """Return whether these are all experts of a mixture, whose sums are made together.

        On the CPU rows in the order of experts are added faster expert by expert (benchmarks/expert_sums.py).
        """
        whole = [matrix.expert for matrix in matrices] == list(range(len(matrices)))
        if not whole or Needs.SECOND_MOMENTS in self._needs:
            return False
        device = matrices[0].weight.device
        return not isinstance(place, Between) or (device.type != "cpu" and agrees(device))

    def _stacked(self, matrices: Sequence[Matrix], languages: int, weighting: LanguageWeights) -> ExpertStatistics:
        features, device = matrices[0].shape[1], matrices[0].weight.device
        together = ExpertStatistics(len(matrices), languages, features, device, self._needs, weighting)
        self.statistics.update(zip((matrix.name for matrix in matrices), together.parts, strict=True))
        return together

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hook the matrices for the time of the block."""
        hooks = [place.register_forward_pre_hook(self._see) for place in self._matrices]
        try:
            yield
        finally:
            self._last = None
            for hook in hooks:
                hook.remove()

    @contextmanager
    def reading(self, batch: Batch, dense: Mapping[nn.Module, Tensor] | None = None) -> Iterator[None]:
        """Say which batch the next forward pass is about, and what the dense model has in its places of matrices."""
        self._batch, self._dense = batch, dense or {}
        try:
            yield
        finally:
            self._batch = self._last = None
            self._dense = {}

    def add(self, place: nn.Module, args: tuple[Any, ...], batch: Batch) -> None:
        """Add what `batch` brings to the matrices at `place`, as `place_of` gives it, when that is called with `args`.

        Raises:
            CalibrationError: the inputs are not those of the tokens of the batch.
        """
        matrices = self._matrices[place]
        if matrices[0].expert is not None:
            if len(args) < 2:
                raise CalibrationError(f"{type(place).__name__} is not called with hidden states and their routing")
            self._add_experts(place, matrices, args[0].detach(), args[1], batch)
            return
        name = matrices[0].name
        if self._last is None or self._last[0] is not args[0]:
            inputs = by_sequence(args[0], batch.tokens)
            dense = by_sequence(self._dense[place], batch.tokens) if place in self._dense else None
            if self._unit_tokens:
                inputs, *scaled = unit_tokens(inputs, *(() if dense is None else (dense,)))
                dense = scaled[0] if scaled else None
            weights = self._weights_of(name, batch.languages)
            self._last = (args[0], SequenceSums.of(inputs, self._needs, weights, dense, self._moment_share))
        self.statistics[name].add(self._last[1], batch.languages)

    def _add_experts(
        self,
        place: nn.Module,
        matrices: Sequence[Matrix],
        inputs: Float[Tensor, "... I"],
        chosen: Int[Tensor, "N k"],
        batch: Batch,
    ) -> None:
        """Add to each expert the tokens that are sent to it; those of one language count as one sequence.

        `inputs` are those of all tokens or, `Between` the products, one for each choice in the order of experts.
        """
        in_order = isinstance(place, Between)
        if self._unit_tokens:
            (inputs,) = unit_tokens(inputs)
        if chosen.dim() != 2 or chosen.shape[0] != batch.tokens.numel():
            raise CalibrationError(f"experts got choices {tuple(chosen.shape)} for {batch.tokens.numel()} tokens")
        if place in self._together:
            languages = batch.languages.to(chosen.device, non_blocking=True)
            by_token = chosen.view(*batch.tokens.shape, -1)
            self._together[place].add(inputs.flatten(0, -2), by_token, languages, in_order)
            return
        order = in_order_of_experts(chosen)
        tokens = order // chosen.shape[1]
        languages = batch.languages.repeat_interleave(batch.tokens.shape[1])
        languages = languages.to(chosen.device, non_blocking=True)[tokens]
        # What waits for the device is asked for once a batch, not for each expert.
        count = self.statistics[matrices[0].name].languages
        runs, lengths = torch.unique_consecutive(chosen.flatten()[order] * count + languages, return_counts=True)
        experts, sizes = torch.stack([runs // count, lengths]).tolist()
        parts = (inputs if in_order else tokens).split(sizes)
        names = {matrix.expert: matrix.name for matrix in matrices}
        for expert, language, part in zip(experts, (runs % count).split(1), parts, strict=True):
            values = part if in_order else inputs[part]
            name = names[expert]
            sums = SequenceSums.of(values[None], self._needs, self._weights_of(name, language))
            self.statistics[name].add(sums, language)

    def _weights_of(self, name: str, languages: Int[Tensor, " B"]) -> Float[Tensor, " B"] | None:
        weights = self._weights.get(name)
        return None if weights is None else weights[languages.to(weights.device, non_blocking=True)]

    def _see(self, place: nn.Module, args: tuple[Any, ...]) -> None:
        batch = self._batch or self._current()
        if batch is not None:
            self.add(place, args, batch)


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
    expert; what the other experts see comes from the same hidden states.
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
