"""How far `mode=plan` can be trusted: what it predicted for each language, beside what runs measured.

    python run.py mode=plan method=wanda output_dir=PLAN
    python run.py --multirun method=wanda sparsity=0.3,0.5 sweep.folder=DIR
    python benchmarks/prediction.py PLAN/plan.json DIR

Runs must have the method, the model and the calibration that was planned with; only languages that gave calibration
text have a prediction. Runs of one sparsity and text are averaged over their seeds. Correlations are over languages;
Spearman's has a 95 % interval of the percentile bootstrap over sentences (drawn for all languages at once, as the
corpus is parallel) and over languages. "within" is the share of languages that are measured to lie in the predicted
interval.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from language_damage import Run, Values
from scipy.stats import pearsonr, spearmanr


def by_sparsity(plan: Mapping[str, Any], runs: Sequence[Run]) -> list[str]:
    """Return the lines of a Markdown table: one for each method and sparsity that was planned and run."""
    groups: dict[tuple[str, float, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.method, run.sparsity, run.setting].append(run)
    lines = ["| method | sparsity | seeds | languages | predicted | measured | Spearman | Pearson | within |"]
    lines.append("|---" * 9 + "|")
    for (method, sparsity, _), found in sorted(groups.items()):
        if sparsity in plan["sparsities"]:
            lines.append(_line(method, sparsity, found, plan))
    return lines


def _line(method: str, sparsity: float, runs: Sequence[Run], plan: Mapping[str, Any]) -> str:
    place = plan["sparsities"].index(sparsity)
    known = [index for index, code in enumerate(runs[0].languages) if code in plan["languages"]]
    cells = [plan["languages"][runs[0].languages[index]][place] for index in known]
    predicted, low, high = (np.array([cell[key] for cell in cells]) for key in ("log_ratio", "low", "high"))
    added, tokens = np.mean([run.added for run in runs], axis=0)[known], runs[0].tokens[known]
    measured = added.sum(axis=1) / tokens.sum(axis=1)
    within = np.mean((low <= measured) & (measured <= high))
    rank, (least, most) = spearmanr(predicted, measured)[0], interval(predicted, added, tokens)
    return (
        f"| {method} | {sparsity:g} | {len(runs)} | {len(known)} | {predicted.mean():.3f} | {measured.mean():.3f} | "
        f"{rank:.2f} ({least:.2f}–{most:.2f}) | {pearsonr(predicted, measured)[0]:.2f} | {100 * within:.0f} % |"
    )


def interval(predicted: Values, added: Values, tokens: Values, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of Spearman's correlation.

    Args:
        predicted: damage by language.
        added: nats that pruning added, languages × sentences.
        tokens: likewise, tokens that were predicted.
        draws: of the bootstrap.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        sentences = generator.integers(added.shape[1], size=added.shape[1])
        chosen = generator.integers(len(predicted), size=len(predicted))
        measured = added[:, sentences].sum(axis=1) / tokens[:, sentences].sum(axis=1)
        if np.ptp(predicted[chosen]) and np.ptp(measured[chosen]):  # one language drawn each time has no correlation
            found.append(spearmanr(predicted[chosen], measured[chosen])[0])
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path, help="plan.json of mode=plan")
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="sweeps, or folders of them")
    options = parser.parse_args()
    places = sorted(path.parent for folder in options.folders for path in folder.rglob("results.json"))
    runs = [run for place in places if (run := Run.read(place)) is not None]
    print(*by_sparsity(json.loads(options.plan.read_text(encoding="utf-8")), runs), sep="\n")


if __name__ == "__main__":
    main()
