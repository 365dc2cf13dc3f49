r"""Do weights of languages, raised where the damage was, lower the worst language's damage? Rounds of a minimax game.

    python benchmarks/minimax.py OUT --tune evaluation.corpus=local --tune evaluation.corpus.path=FOLDER \
        method=recommended 'langs=[deu_Latn,fin_Latn,tam_Taml]' evaluation.sentences=8

A round prunes with `calibration.weights`, measures the damage `d_l` to each language (its log-ratio to the dense model)
on a text to tune on (`--tune`), and multiplies each weight by `exp(step · (d_l − mean d) / max d)`, the multiplicative
weights of Freund and Schapire's game against the worst case. The weights of the round with the lowest worst language
are then compared with equal ones on the text of the overrides, paired over its sentences. Rounds that are there already
are read: what is interrupted goes on.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from language_damage import Run


ROOT = Path(__file__).parents[1]


def pruned(folder: Path, overrides: Sequence[str], weights: Mapping[str, float]) -> Path:
    """Prune and measure with these weights, unless that was done; return the folder of the run."""
    if not (folder / "results.json").is_file() or Run.read(folder) is None:
        chosen = ",".join(f"{code}: {weight:.4f}" for code, weight in weights.items())
        given = [f"calibration.weights={{{chosen}}}"] if weights else []
        command = [sys.executable, str(ROOT / "run.py"), *overrides, *given, f"output_dir={folder}", "tracking=none"]
        subprocess.run(command, check=True)  # where we are: folders of the overrides are relative to that
    return folder


def damages(folder: Path) -> dict[str, float]:
    """Return the log-ratio of each language to the dense model."""
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))["perplexity"]
    dense, pruned_model = found["dense"], found["pruned"]
    return {code: math.log(each["perplexity"] / dense[code]["perplexity"]) for code, each in pruned_model.items()}


def raised(weights: Mapping[str, float], found: Mapping[str, float], step: float) -> dict[str, float]:
    """Return the weights of the next round, with a mean of one."""
    mean, most = sum(found.values()) / len(found), max(found.values())
    grown = {code: weights.get(code, 1.0) * math.exp(step * (found[code] - mean) / most) for code in found}
    total = sum(grown.values()) / len(grown)
    return {code: weight / total for code, weight in grown.items()}


def compared(equal: Run, weighted: Run, draws: int = 10_000) -> dict[str, tuple[float, float, float]]:
    """Return how much lower the mean and the worst language are, as shares with their 95 % intervals."""
    sentences = equal.tokens.shape[1]
    drawn = np.random.default_rng(0).integers(sentences, size=(draws, sentences))
    drawn = np.concatenate([np.arange(sentences)[None], drawn])
    both = [run.added[:, drawn].sum(axis=-1) / run.tokens[:, drawn].sum(axis=-1) for run in (equal, weighted)]
    found = {}
    for name, of in {"mean": np.mean, "worst": np.max}.items():
        share = 1 - of(both[1], axis=0) / of(both[0], axis=0)
        low, high = np.quantile(share[1:], (0.025, 0.975))
        found[name] = (float(share[0]), float(low), float(high))
    return found


def main() -> None:
    """Play the rounds, and print what they bring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--step", type=float, default=2.0)
    parser.add_argument("--tune", action="append", default=[], metavar="OVERRIDE", help="of the runs to tune on")
    options, overrides = parser.parse_known_args()
    weights: dict[str, float] = {}
    best, least = weights, math.inf
    for number in range(options.rounds):
        found = damages(pruned(options.out / f"round-{number}", [*overrides, *options.tune], weights))
        worst = max(found, key=lambda code: found[code])
        mean = sum(found.values()) / len(found)
        print(f"round {number}: mean {mean:.3f}, worst {worst} {found[worst]:.3f}", flush=True)
        if found[worst] < least:
            best, least = weights, found[worst]
        weights = raised(weights, found, options.step)
    print("weights:", {code: round(weight, 2) for code, weight in best.items()} or "equal")
    runs = [pruned(options.out / name, overrides, w) for name, w in (("equal", {}), ("weighted", best))]
    equal, weighted = (Run.read(folder) for folder in runs)
    assert equal is not None
    assert weighted is not None
    for name, (share, low, high) in compared(equal, weighted).items():
        print(f"{name}: {100 * share:.1f} % ({100 * low:.1f} to {100 * high:.1f}) lower than with equal weights")


if __name__ == "__main__":
    main()
