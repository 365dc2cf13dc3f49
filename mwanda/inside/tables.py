"""Findings about the blocks of a model, as tidy tables and as a summary."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mwanda.inside.columns import COLUMNS
from mwanda.inside.neurons import LanguageNeurons
from mwanda.system.files import csv_text, write_text


Row = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """Of one block and each language: the energy lost in it alone, and the drift of the hidden states behind it."""

    energy_lost: Float[Tensor, " L"]
    drift: Float[Tensor, " L"]


@dataclass(frozen=True)
class Findings:
    """All findings about one pruned model.

    Args:
        codes: the languages.
        blocks: their names.
        criterion: that chose the masks of single languages.
        tokens: of each language on which outputs were compared, the first of them among them.
        energy: a block each.
        correlations: of the ranks of every two languages' profiles, a block each.
        overlaps: intersection over union of every two languages' masks, a block each.
        neurons: those that belong to few languages; None where no neurons are known.
        places: block, matrix and number of each neuron.
        probabilities: of each neuron's activity.
        weights_per_neuron: by the matrix whose inputs the neurons are.
        zeros_before: of each neuron, by matrix.
        zeros: of each neuron of the pruned model, by matrix.
    """

    codes: tuple[str, ...]
    blocks: Sequence[str]
    criterion: str
    tokens: int
    energy: Sequence[Measured]
    correlations: Sequence[Float[Tensor, "L L"]]
    overlaps: Sequence[Float[Tensor, "L L"]]
    neurons: LanguageNeurons | None
    places: Sequence[tuple[int, str, int]]
    probabilities: Float[Tensor, "L N"]
    weights_per_neuron: Mapping[str, int]
    zeros_before: Mapping[str, Int[Tensor, " N"]]
    zeros: Mapping[str, Int[Tensor, " N"]]

    def tables(self) -> dict[str, list[Row]]:
        """Return the tidy tables by name."""
        return {
            "energy": self._energy(),
            "profiles": self._pairs(self.correlations, "rank_correlation"),
            "masks": self._pairs(self.overlaps, "intersection_over_union"),
            "neurons": self._neurons(),
        }

    def summary(self) -> Row:
        """Return what results.json holds: a row for each block and for each language, and the neurons."""
        neurons = self._neurons()
        languages = {code: self._of_language(number, neurons) for number, code in enumerate(self.codes)}
        layers = [
            {
                "layer": layer,
                "energy_lost": _mean(measured.energy_lost.tolist()),
                "drift": _mean(measured.drift.tolist()),
                "rank_correlation": _mean(_between(self.correlations[layer])),
                "intersection_over_union": _mean(_between(self.overlaps[layer])),
            }
            for layer, measured in enumerate(self.energy)
        ]
        return {
            "text": "calibration",
            "tokens": self.tokens,
            "criterion_of_masks": self.criterion,
            "per_layer": layers,
            "per_language": languages,
            "neurons": self._of_neurons(neurons),
        }

    def write(self, folder: Path) -> Row:
        """Write the tables into `folder`, and return the summary."""
        for name, rows in self.tables().items():
            write_text(folder / f"{name}.csv", csv_text(rows, COLUMNS[name]))
        return self.summary()

    def _energy(self) -> list[Row]:
        return [
            {
                "layer": layer,
                "language": code,
                "energy_lost": float(measured.energy_lost[number]),
                "drift": float(measured.drift[number]),
            }
            for layer, measured in enumerate(self.energy)
            for number, code in enumerate(self.codes)
        ]

    def _pairs(self, values: Sequence[Float[Tensor, "L L"]], name: str) -> list[Row]:
        pairs = list(combinations(range(len(self.codes)), 2))
        return [
            {"layer": layer, "language": self.codes[one], "other": self.codes[two], name: float(matrix[one, two])}
            for layer, matrix in enumerate(values)
            for one, two in pairs
        ]

    def _neurons(self) -> list[Row]:
        """Return a row for each neuron and each language that it belongs to."""
        rows: list[Row] = []
        if self.neurons is None:
            return rows
        for place, value, languages in zip(
            self.neurons.chosen.tolist(), self.neurons.entropy.tolist(), self.neurons.languages, strict=True
        ):
            layer, matrix, number = self.places[place]
            mine = torch.nonzero(languages).flatten().tolist()
            rows += [
                {
                    "layer": layer,
                    "matrix": matrix,
                    "neuron": number,
                    "language": self.codes[language],
                    "languages": len(mine),
                    "entropy": value,
                    "probability": float(self.probabilities[language, place]),
                    "weights": self.weights_per_neuron[matrix],
                    "zeros_before": int(self.zeros_before[matrix][number]),
                    "zeros": int(self.zeros[matrix][number]),
                }
                for language in mine
            ]
        return rows

    def _of_language(self, number: int, neurons: Sequence[Row]) -> Row:
        mine = [row for row in neurons if row["language"] == self.codes[number]]
        alone = [row for row in mine if row["languages"] == 1]
        others = [each for each in range(len(self.codes)) if each != number]
        return {
            "energy_lost": _mean([float(each.energy_lost[number]) for each in self.energy]),
            "drift": float(self.energy[-1].drift[number]),
            "rank_correlation": _mean([float(each[number, other]) for each in self.correlations for other in others]),
            "intersection_over_union": _mean(
                [float(each[number, other]) for each in self.overlaps for other in others]
            ),
            "neurons": len(mine),
            "neurons_weights_lost": _lost(mine),
            "own_neurons": len(alone),
            "own_neurons_weights_lost": _lost(alone),
        }

    def _of_neurons(self, rows: Sequence[Row]) -> Row | None:
        if self.neurons is None:
            return None
        sizes = [self.weights_per_neuron[matrix] * len(zeros) for matrix, zeros in self.zeros.items()]
        before = sum(int(zeros.sum()) for zeros in self.zeros_before.values())
        after = sum(int(zeros.sum()) for zeros in self.zeros.values())
        once = {(row["matrix"], row["neuron"]): row for row in rows}
        return {
            "all": len(self.places),
            "weights_lost": (after - before) / max(1, sum(sizes) - before),
            "probability_bar": self.neurons.bar,
            "specific": len(once),
            "specific_weights_lost": _lost(list(once.values())),
            "own": sum(row["languages"] == 1 for row in once.values()),
            "own_weights_lost": _lost([row for row in once.values() if row["languages"] == 1]),
        }


def _between(matrix: Float[Tensor, "L L"]) -> list[float]:
    """Return the values of every two different languages."""
    above = torch.triu_indices(len(matrix), len(matrix), offset=1)
    values: list[float] = matrix[above[0], above[1]].tolist()
    return values


def _mean(values: Sequence[float]) -> float | None:
    """Return the mean of what is a number; None where nothing is."""
    numbers = [value for value in values if not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else None


def _lost(rows: Sequence[Row]) -> float | None:
    """Return the share of the neurons' non-zero weights that pruning took."""
    there = sum(row["weights"] - row["zeros_before"] for row in rows)
    return sum(row["zeros"] - row["zeros_before"] for row in rows) / there if there else None
