"""What a sweep costs beside the same runs one by one, and whether both give the same numbers.

    python benchmarks/sweep.py                      18 jobs on Gemma 3 270M: a sweep, then each by itself (20 minutes)
    python benchmarks/sweep.py --singles 6          every third of the single runs; their mean stands for the others
    python benchmarks/sweep.py langs=[eng_Latn] …   other settings; overrides with several values are swept over

The sweep starts with an empty store of artifacts; single runs are processes of their own with `artifacts=false`. Both
start from a converted model, and times are of whole processes: imports, loading and evaluation count. Writes
`outputs/benchmarks/sweep/` (`sweep.json`, and the runs themselves).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from measure import machine

from mwanda.cache import cache_folder
from mwanda.command_line import check, with_inline_languages
from mwanda.record import environment, write_json
from mwanda.sweep import Job


RUN = Path(__file__).resolve().parent.parent / "run.py"
SWEPT = ("criterion=wanda,mwanda", "schedule=uniform,owl,cwl", "sparsity=0.3,0.5,0.6")
SETTINGS = ("model=gemma3", "pruner=oneshot", "evaluation.sentences=3", "tracking=none")
NUMBERS = ("model", "criterion", "sparsity", "calibration", "schedule", "perplexity", "tasks")


def main() -> None:
    """Run the sweep, then single runs, and compare seconds and numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--singles", type=int, default=0, help="how many jobs are also run by themselves; 0 for all")
    parser.add_argument("--folder", type=Path, default=Path("outputs/benchmarks/sweep"))
    parser.add_argument("overrides", nargs="*", help="instead of the settings above")
    given = parser.parse_args()
    folder = given.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    variables = os.environ | {"MWANDA_CACHE": str(_cache_without_artifacts(folder / "cache"))}
    overrides = given.overrides or [*SETTINGS, *SWEPT]

    facts: dict[str, Any] = {"overrides": overrides, "machine": machine(0), "environment": environment("cpu")}
    typed = with_inline_languages(["--multirun", *overrides, f"sweep.folder={folder}", "sweep.name=sweep"])
    asked = check(typed)
    assert asked is not None
    jobs = asked.plan.jobs
    chosen = _every(jobs, given.singles)
    half = len(chosen) // 2  # half of them before the sweep and half after, as the machine may get slower or faster
    alone = [_alone(job, folder, variables) for job in chosen[:half]]
    together = _seconds(typed, variables)
    alone += [_alone(job, folder, variables) for job in chosen[half:]]
    runs = [
        {"job": job.folder.name, "seconds": seconds, "differs_in": _differences(job.folder, place)}
        for job, (seconds, place) in zip(chosen, alone, strict=True)
    ]
    whole = sum(seconds for seconds, _ in alone) / len(alone) * len(jobs)
    facts |= {
        "jobs": len(jobs),
        "sweep_seconds": together,
        "single_runs": runs,
        "single_runs_measured": len(alone),
        "all_single_runs_seconds": whole,
        "ratio": together / whole,
    }
    write_json(folder / "sweep.json", facts)
    print(f"{len(jobs)} jobs as a sweep: {together:.1f} s")
    print(f"{len(jobs)} single runs ({len(alone)} measured): {whole:.1f} s; ratio {together / whole:.3f}")
    wrong = [each for each in runs if each["differs_in"]]
    print("numbers: all the same" if not wrong else f"numbers DIFFER: {wrong}")
    sys.exit(1 if wrong else 0)


def _cache_without_artifacts(folder: Path) -> Path:
    """Make a cache folder with everything that the user's holds, converted models foremost, but no artifact."""
    folder.mkdir(parents=True)
    for each in cache_folder().iterdir() if cache_folder().is_dir() else ():
        if each.name != "artifacts":
            (folder / each.name).symlink_to(each)
    return folder


def _alone(job: Job, folder: Path, variables: dict[str, str]) -> tuple[float, Path]:
    """Return the seconds of a job that runs by itself, and where it has left its results."""
    place = folder / "singles" / job.folder.name
    seconds = _seconds([*job.overrides, "artifacts=false", f"output_dir={place}"], variables)
    print(f"{job.folder.name}: {seconds:.1f} s alone", flush=True)
    return seconds, place


def _seconds(arguments: Sequence[str], variables: dict[str, str]) -> float:
    start = perf_counter()
    subprocess.run([sys.executable, str(RUN), *arguments], env=variables, check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - start


def _every(jobs: Sequence[Job], count: int) -> list[Job]:
    count = min(count, len(jobs)) or len(jobs)
    return [jobs[number * len(jobs) // count] for number in range(count)]


def _differences(first: Path, second: Path) -> list[str]:
    """Return the sections of results.json in which any number differs."""
    one, other = (json.loads((folder / "results.json").read_text(encoding="utf-8")) for folder in (first, second))
    return [key for key in NUMBERS if json.dumps(one[key]) != json.dumps(other[key])]


if __name__ == "__main__":
    main()
