"""How much text does `schedule=fisher` need, with each weight apart and with what weights do together?

    python benchmarks/information.py --sequences 12 --draws 2

Squares of a few sequences of each language (embedded corpus, Gemma 3 270M) are pooled, sparsities are allocated by
them at 50 %, and judged by the damage that all other sequences predict with what weights do together: "excess" is what
is more there than the least that could be had, "spread" the standard deviation of the logarithm of the damage of
single matrices against theirs, both the mean of several choices of sequences. First it says how far the two agree over
all sequences and matrices, at each level.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from mwanda.calibration import CalibrationSet
from mwanda.calibration.sampling import Calibration
from mwanda.corpora.embedded import Embedded
from mwanda.criteria.wanda import Wanda
from mwanda.languages.lookup import find
from mwanda.models.gemma import PackagedGemma
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner.damage import Sample, measure_damage
from mwanda.pruner.passes import Passes, PassSettings
from mwanda.schedules.base import Information
from mwanda.schedules.curve import DamageCurve
from mwanda.schedules.fisher import Fisher


SPARSITY = 0.5
SCHEDULE = Fisher()
LANGUAGES = (
    "arb_Arab,amh_Ethi,hau_Latn,ben_Beng,hin_Deva,pes_Arab,deu_Latn,eng_Latn,fra_Latn,spa_Latn,rus_Cyrl,ell_Grek,"
    "cmn_Hans,tur_Latn,ind_Latn"
)


@dataclass(frozen=True)
class Squares:
    """What two passes over the same sequences saw.

    Args:
        values: by what was looked at; of each sequence, matrix and level.
        languages: of each sequence.
        sizes: each matrix's share of the weights.
    """

    values: dict[str, Float[Tensor, "S M K"]]
    languages: Int[Tensor, " S"]
    sizes: list[float]


def allocated(damage: Float[Tensor, "M K"], sizes: Sequence[float]) -> NDArray[np.float64]:
    """Return the sparsity of each matrix."""
    return np.array(SCHEDULE.allocate(damage.tolist(), sizes, SPARSITY, [0.0] * len(sizes)))


def predicted(sparsities: NDArray[np.float64], damage: Float[Tensor, "M K"]) -> float:
    """Return the damage of all matrices at sparsities of their own."""
    pooled = damage.sum(dim=0)
    amounts = (damage / pooled).mean(dim=1).numpy()
    return float(amounts @ DamageCurve(np.array(SCHEDULE.levels), pooled.numpy()).at(sparsities))


def judged(squares: Squares, each: int, choices: int) -> dict[str, tuple[float, float]]:
    """Return spread and excess of what so many sequences of each language say, by what was looked at."""
    generator = torch.Generator().manual_seed(0)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in squares.values}
    for _ in range(choices):
        order = torch.rand(len(squares.languages), generator=generator)
        rank = torch.stack(
            [
                ((squares.languages == own) & (order < mine)).sum()
                for own, mine in zip(squares.languages, order, strict=True)
            ]
        )
        chosen = rank < each
        truth = squares.values["directional"][~chosen].mean(dim=0)
        least = predicted(allocated(truth, squares.sizes), truth)
        for name, values in squares.values.items():
            few = values[chosen].mean(dim=0)
            spread = float((few / truth).mean(dim=1).log().std())
            found[name].append((spread, predicted(allocated(few, squares.sizes), truth) / least - 1))
    return {name: tuple(np.mean(pairs, axis=0).tolist()) for name, pairs in found.items()}


def agreement(squares: Squares) -> list[float]:
    """Return the damage with each weight apart over that of weights together, the mean over matrices at each level."""
    apart, together = (squares.values[name].mean(dim=(0, 1)) for name in ("diagonal", "directional"))
    return (apart / together).tolist()


def measured(model: Any, calibration: CalibrationSet, draws: int) -> Squares:
    """Look at all sequences in both ways."""
    passes = Passes.of(model, calibration, PassSettings(8, 0, "device"))
    sizes = [matrix.weight.numel() for block in passes.blocks for matrix in block.matrices]
    values = {}
    for information in get_args(Information):
        sample = Sample(SCHEDULE.levels, 1.0, SCHEDULE.labels, draws, 0, information)
        damage = measure_damage(passes, Wanda(), Unstructured(), sample)
        values[information] = damage.squares.mean(dim=1)
    return Squares(values, damage.languages, [size / sum(sizes) for size in sizes])


def main() -> None:
    """Print a row for each number of sequences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=12, help="of each language")
    parser.add_argument("--each", type=int, nargs="+", default=[1, 3, 6], help="of them that are pooled")
    parser.add_argument("--draws", type=int, default=2, help="of labels for each sequence")
    parser.add_argument("--choices", type=int, default=10)
    parser.add_argument("--languages", default=LANGUAGES)
    options = parser.parse_args()
    loaded = PackagedGemma(dtype="float32", device="cpu").load()
    codes = options.languages.split(",")
    text = {language.code: list(Embedded().sentences(language, "calibration")) for language in find(codes)}
    calibration = Calibration(sequences=options.sequences * len(codes)).build(loaded.tokenizer, text)
    squares = measured(loaded.model, calibration, options.draws)
    ratios = ", ".join(
        f"{ratio:.3f} at {level:g}" for ratio, level in zip(agreement(squares), SCHEDULE.levels, strict=True)
    )
    print(f"each weight apart over all together: {ratios}\n")
    print("| sequences | looked at | spread | excess |\n|---|---|---|---|")
    for each in options.each:
        for name, (spread, excess) in judged(squares, each, options.choices).items():
            print(f"| {each * len(codes)} | {name} | {spread:.2f} | {100 * excess:.1f} % |")


if __name__ == "__main__":
    main()
