"""AlphaPruning: matrices whose spectrum has a heavier tail keep more."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from jaxtyping import Float
from torch import Tensor

from mwanda.schedules.base import BlockMatrix, Level, Looks, project
from mwanda.statistics import Needs


Tail = Literal["peak", "middle"]
BINS = 100
"""Of the histogram of the logarithms of eigenvalues, in which the peak is looked for."""


@dataclass(frozen=True)
class AlphaPruning:
    """`s_k ∝ 1 − τ + 2τ · (α_k − min α) / (max α − min α)` (Lu et al., NeurIPS 2024, 2410.10912).

    `α_k` is the mean over the block's matrices of the exponent of their spectra: the smaller, the heavier the tail,
    which is read as "better trained". No calibration text is looked at.

    Args:
        width: τ, relative to the target; sparsities spread over `S · [1 − τ, 1 + τ]` before the budget is met.
        tail: where the tail begins: at the `peak` of the histogram of the eigenvalues, or in the `middle` of them.
        level: see Schedule.
    """

    width: Annotated[float, Ge(0), Le(1)] = 0.3
    tail: Tail = "peak"
    level: Level = "block"
    signal_fraction: ClassVar[float] = 1.0
    needs: ClassVar[Needs] = Needs.NOTHING
    looks_at: ClassVar[Looks] = "weights"

    def signal(self, matrices: Sequence[BlockMatrix]) -> Sequence[float]:
        """Return `−α_k`."""
        spectra = [eigenvalues(matrix.weight) for matrix in matrices]
        # Fits are many small steps that look at values: on the CPU, so that a device is not waited for at each of them.
        fetched = torch.cat(spectra).cpu().split([len(spectrum) for spectrum in spectra])
        alphas = torch.tensor([hill_exponent(spectrum, self.tail) for spectrum in fetched])
        return (-float(alphas.double().mean()),)

    def allocate(
        self, signals: Sequence[Sequence[float]], shares: Sequence[float], target: float, lower: Sequence[float]
    ) -> list[float]:
        """Return sparsities that rise with the exponent; as published they are scaled, not shifted, to the budget."""
        alphas = -torch.tensor([signal for (signal,) in signals], dtype=torch.float64)
        low, high = alphas.min(), alphas.max()
        if not torch.isfinite(alphas).all() or high <= low:
            return project([0.0] * len(shares), shares, target, lower)
        ratios = 1 - self.width + 2 * self.width * (alphas - low) / (high - low)
        mean = (ratios * torch.tensor(shares, dtype=torch.float64)).sum()
        return project((target * ratios / mean).tolist(), shares, target, lower)


def eigenvalues(weight: Float[Tensor, "out in"]) -> Float[Tensor, " n"]:
    """Return the eigenvalues of `WᵀW` that are not zero for the shape of `W` alone, `n = min(out, in)`, rising."""
    values = weight.double()
    wide = values.shape[0] < values.shape[1]
    spectrum: Tensor = torch.linalg.eigvalsh(values @ values.T if wide else values.T @ values)
    return spectrum


def hill_exponent(spectrum: Float[Tensor, " n"], tail: Tail = "peak") -> float:
    """Return Hill's estimate `1 + k / Σ_i ln(λ_i / λ_min)` of the exponent of the k largest eigenvalues.

    `λ_min` is the smallest of them. With `tail=peak` it lies near the peak of the histogram of the logarithms, where a
    power law fits best (Kolmogorov–Smirnov distance; Fix-finger, Yang et al., KDD 2023). With `middle` the tail is the
    upper half. NaN where no tail is left (a matrix of zeros, or of equal eigenvalues).

    Args:
        spectrum: on the CPU, rising; eigenvalues that are zero but for rounding are left out.
        tail: see above.
    """
    values = spectrum.double()
    logs = values[values > values[-1].clamp(min=0) * 1e-14].log()
    if len(logs) < 2 or logs[-1] <= logs[0]:
        return float("nan")
    starts = _near_the_peak(logs) if tail == "peak" else [len(logs) // 2]
    fits = [_power_law(logs[start:]) for start in starts]
    return min(fits, key=lambda fit: fit[0])[1]


def _power_law(logs: Float[Tensor, " k"]) -> tuple[float, float]:
    """Return how far eigenvalues (their logarithms, rising) are from the power law that fits them, and its exponent."""
    above = logs - logs[0]
    exponent = 1 + len(logs) / above.sum()
    empirical = torch.arange(len(logs), dtype=torch.float64) / len(logs)
    distance = (1 - ((1 - exponent) * above).exp() - empirical).abs().max()
    return float(distance), float(exponent)


def _near_the_peak(logs: Float[Tensor, " n"]) -> list[int]:
    """Return the places of the eigenvalues between 0.95 and 1.5 times the one at the peak, or of the next above."""
    low, high = float(logs[0]), float(logs[-1])
    counts = torch.histc(logs, BINS, min=low, max=high)
    peak = low + (high - low) * int(counts.argmax()) / BINS
    bounds = torch.tensor([0.95, 1.5], dtype=torch.float64).log() + peak
    first, last = torch.searchsorted(logs, bounds).tolist()
    most = len(logs) - 2  # a tail of one eigenvalue has no exponent
    return list(range(min(first, most), max(min(last, most + 1), min(first, most) + 1)))
