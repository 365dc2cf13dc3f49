"""What share of a baseline's damage each method takes away: languages seen in calibration, unseen ones, and the worst.

    python benchmarks/language_damage.py outputs/sweeps/methods --baseline wanda/threshold/uniform

The damage to a language is its log-ratio to the dense model, in nats a token: over all its sentences, the loss that was
added by the loss of tokens. Runs of one sparsity, pattern and calibration are compared over the seeds that both have.
Intervals are of the percentile bootstrap. The corpus is parallel, so sentences are drawn for all languages, methods and
seeds at once; seeds are not drawn. The worst language of a draw is that of the draw, which makes both worsts a little
larger than they are.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray


Values = NDArray[np.float64]

PARTS = ("seen", "unseen", "worst")


@dataclass(frozen=True)
class Run:
    """One run.

    Args:
        method: its criterion, solver and schedule.
        setting: what must be the same to compare: sparsity, pattern, the text and how many sentences of it.
        sparsity: over all prunable weights.
        languages: their codes.
        seed: of the run.
        seen: which languages gave calibration text.
        added: nats that pruning added, languages × sentences.
        tokens: likewise, tokens that were predicted.
        seconds: that calibrating and pruning took.
    """

    method: str
    setting: str
    sparsity: float
    languages: tuple[str, ...]
    seed: int
    seen: NDArray[np.bool_]
    added: Values
    tokens: Values
    seconds: float

    @classmethod
    def read(cls, folder: Path) -> "Run | None":
        """Return the run of a folder; None where it is not complete or measured no perplexity."""
        record = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        if record["status"] != "complete" or not record["perplexity"]:
            return None
        units = pd.read_parquet(folder / "units.parquet")
        losses = units.pivot(index="language", columns=["model", "unit"], values="nats").sort_index(axis=1)
        counts = units[units["model"] == "dense"].pivot(index="language", columns="unit", values="tokens")
        calibrated = record["calibration"]["tokens_per_language"]
        sparsity, text = record["sparsity"], record["fingerprints"]
        return cls(
            method="/".join((record["criterion"]["name"], record["solver"]["name"], record["schedule"]["name"])),
            setting=f"{sparsity['target']:g} {sparsity['pattern']}, text {text['evaluation_text'][:6]}, "
            f"{counts.shape[1]} sentences",
            sparsity=sparsity["target"],
            languages=tuple(losses.index),
            seed=record["seed"],
            seen=np.array([code in calibrated for code in losses.index]),
            added=(losses["pruned"] - losses["dense"]).to_numpy(),
            tokens=counts.sort_index(axis=1).to_numpy(dtype=np.float64),
            seconds=record["timing"]["calibrate"] + record["timing"]["prune"],
        )


def damage(runs: Sequence[Run], drawn: NDArray[np.int64]) -> Values:
    """Return the mean over seen and unseen languages and the worst, on the sentences drawn, as draws × parts.

    Args:
        runs: one method under several seeds; their damage to a language is averaged first.
        drawn: sentences, as draws × sentences.
    """
    added = np.mean([run.added for run in runs], axis=0)[:, drawn].sum(axis=-1)
    by_language = (added / runs[0].tokens[:, drawn].sum(axis=-1)).T
    seen = runs[0].seen
    return np.stack([by_language[:, seen].mean(1), by_language[:, ~seen].mean(1), by_language.max(1)], axis=1)


def reductions(runs: Sequence[Run], baseline: Sequence[Run], draws: int, seed: int = 0) -> tuple[Values, Values]:
    """Return `1 − damage / damage of the baseline` of each part, and its 95 % interval as (low, high) × parts."""
    sentences = runs[0].tokens.shape[1]
    drawn = np.random.default_rng(seed).integers(sentences, size=(draws, sentences))
    drawn = np.concatenate([np.arange(sentences)[None], drawn])
    found = 1 - damage(runs, drawn) / damage(baseline, drawn)
    return found[0], np.quantile(found[1:], (0.025, 0.975), axis=0)


def paired(runs: Sequence[Run], baseline: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Return the runs of both methods under the seeds that both have."""
    ours, theirs = ({run.seed: run for run in each} for each in (runs, baseline))
    seeds = sorted(ours.keys() & theirs.keys())
    return [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]


def table(runs: Sequence[Run], baseline: str, draws: int) -> list[str]:
    """Return the lines of a Markdown table for each setting."""
    by_setting: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        by_setting[run.setting][run.method].append(run)
    return [line for setting in sorted(by_setting) for line in _lines(setting, by_setting[setting], baseline, draws)]


def _lines(setting: str, methods: Mapping[str, list[Run]], baseline: str, draws: int) -> list[str]:
    lines = ["", f"{setting}, less than {baseline} by", ""]
    lines += ["| method | seeds | seen | unseen | worst | less: seen | unseen | worst | time |", "|---" * 9 + "|"]
    for method, found in sorted(methods.items(), key=lambda each: _mean(each[1])):
        ours, theirs = paired(found, methods.get(baseline, []))
        alone = damage(found, np.arange(found[0].tokens.shape[1])[None])[0]
        cells = [f"{value:.3f}" for value in alone]
        if ours:
            point, (low, high) = reductions(ours, theirs, draws)
            cells += [
                f"{100 * p:.0f} % ({100 * a:.0f}–{100 * b:.0f})" for p, a, b in zip(point, low, high, strict=True)
            ]
            cells.append(f"{np.median([o.seconds / t.seconds for o, t in zip(ours, theirs, strict=True)]):.2f} ×")
        else:
            cells += ["–"] * 4
        lines.append(f"| {method} | {len(found)} | {' | '.join(cells)} |")
    return lines


def _mean(runs: Sequence[Run]) -> float:
    return float(np.mean([run.added.sum() / run.tokens.sum() for run in runs]))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="sweeps, or folders of them")
    parser.add_argument("--baseline", default="wanda/threshold/uniform", help="criterion/solver/schedule")
    parser.add_argument("--draws", type=int, default=10_000, help="of the bootstrap")
    options = parser.parse_args()
    places = sorted(path.parent for folder in options.folders for path in folder.rglob("results.json"))
    runs = [run for place in places if (run := Run.read(place)) is not None]
    print(*table(runs, options.baseline, options.draws), sep="\n")


if __name__ == "__main__":
    main()
