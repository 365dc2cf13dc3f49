"""How long the comparison of thousands of runs takes, of the processor, by the whole command.

    python benchmarks/comparison.py                 3,000 runs, report.html and pictures included
    python benchmarks/comparison.py --runs 300      fewer

The runs are made for this: three seeds each, 27 languages, 18 blocks of 7 matrices, the configuration that a run has.
Sentence losses are left out, which only the 60 pairs of a report are made of. The first command fills the cache with
what is the same for every report, and is not counted.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import machine


sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from synthetic_results import results, save

from mwanda.config.compose import compose
from mwanda.languages import known


METHODS = [(criterion, schedule) for criterion in ("wanda", "mwanda", "ria") for schedule in ("uniform", "owl")]
SEEDS, LANGUAGES, BLOCKS = 3, 27, 18
MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def main() -> None:
    """Make the runs, compare them, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        make(Path(place) / "warm", 3)
        make(Path(place) / "runs", given.runs)
        seconds(Path(place) / "warm")
        taken = sorted(seconds(Path(place) / "runs") for _ in range(given.rounds))
    print(machine(1))
    print(f"{given.runs} runs: {taken[len(taken) // 2]:.1f} s of the processor ({taken[0]:.1f} - {taken[-1]:.1f})")


def make(folder: Path, runs: int) -> None:
    """Write that many runs: methods at ever finer sparsities, with three seeds each."""
    config, codes = compose([]), sorted(known())[:LANGUAGES]
    for place in range(runs):
        step, at = divmod(place, len(METHODS) * SEEDS)
        (criterion, schedule), seed = METHODS[at // SEEDS], at % SEEDS
        sparsity = round(0.3 + step / 1000, 3)
        ratios = {code: 1 + sparsity * (1 + number / 10) for number, code in enumerate(codes)}
        content = results(criterion, schedule, sparsity, seed=seed, ratios=ratios, layers=BLOCKS, matrices=MATRICES)
        own = {"seed": seed, "sparsity": sparsity}
        save(folder / f"{criterion}-{schedule}-{sparsity}-{seed}", content, config | own)


def seconds(folder: Path) -> float:
    """Return how long the processor was at work for the command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "mwanda.comparison", str(folder)]
    root = str(Path(__file__).parents[1])
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": root}, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
