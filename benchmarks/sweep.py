"""What a sweep costs beside the same runs one by one, and whether both give the same numbers.

    python benchmarks/sweep.py                      18 jobs on Gemma 3 270M: a sweep, then each by itself (20 minutes)
    python benchmarks/sweep.py --singles 6          every third of the single runs; their mean stands for the others
    python benchmarks/sweep.py langs=[eng_Latn] …   other settings; overrides with several values are swept over

The sweep starts with an empty store of artifacts; single runs are processes of their own with `artifacts=false`. Both
start from a converted model, and costs are of whole processes, imports, loading and evaluation included: seconds by the
clock, and of the processors, which others on the machine hardly change (Linux). Writes `outputs/benchmarks/sweep/`
(`sweep.json`, and the runs themselves).
"""

import argparse
import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

from measure import machine

from mwanda.command_line import check, with_inline_languages
from mwanda.job.record import OUTCOME
from mwanda.sweep.plan import Job
from mwanda.system.cache import cache_folder
from mwanda.system.environment import environment
from mwanda.system.files import write_json


RUN = Path(__file__).resolve().parent.parent / "run.py"
SWEPT = ("criterion=wanda,mwanda", "schedule=uniform,owl,cwl", "sparsity=0.3,0.5,0.6")
SETTINGS = ("model=gemma3", "pruner=oneshot", "evaluation.sentences=3", "tracking=none")
SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of prctl(2)."""


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

    metadata: dict[str, Any] = {"overrides": overrides, "machine": machine(0), "environment": environment("cpu")}
    typed = with_inline_languages(["--multirun", *overrides, f"sweep.folder={folder}", "sweep.name=sweep"])
    asked = check(typed)
    assert asked is not None
    jobs = asked.sweep.jobs
    chosen = evenly_spread(jobs, given.singles)
    half = len(chosen) // 2  # half of them before the sweep and half after, as the machine may get slower or faster
    alone = [_alone(job, folder, variables) for job in chosen[:half]]
    together = _cost(typed, variables)
    alone += [_alone(job, folder, variables) for job in chosen[half:]]
    singles = folder / "singles"
    runs = [
        {"job": job.folder.name, "differs_in": differing_sections(job.folder, singles / job.folder.name), **cost}
        for job, cost in zip(chosen, alone, strict=True)
    ]
    whole = {clock: sum(cost[clock] for cost in alone) / len(alone) * len(jobs) for clock in together}
    metadata |= {
        "jobs": len(jobs),
        "sweep": together,
        "single_runs": runs,
        "single_runs_measured": len(alone),
        "all_single_runs": whole,
        "ratio": {clock: together[clock] / whole[clock] for clock in together},
    }
    write_json(folder / "sweep.json", metadata)
    print(f"{len(jobs)} jobs as a sweep, {len(jobs)} single runs ({len(alone)} measured)")
    for clock in together:
        print(f"{clock}: {together[clock]:.1f}, {whole[clock]:.1f}; ratio {together[clock] / whole[clock]:.3f}")
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


def _alone(job: Job, folder: Path, variables: dict[str, str]) -> dict[str, float]:
    """Return what a job costs that runs by itself, and leave its results beside the sweep."""
    cost = _cost([*job.overrides, "artifacts=false", f"output_dir={folder / 'singles' / job.folder.name}"], variables)
    print(f"{job.folder.name} alone: {cost}", flush=True)
    return cost


def _cost(arguments: Sequence[str], variables: dict[str, str]) -> dict[str, float]:
    """Run the program; return its seconds, and those of the processors in it and all processes that it has started."""
    # The server that jobs are forked from outlives the program by a moment: become its parent, and wait for it.
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    before, start = os.times(), perf_counter()
    subprocess.run([sys.executable, str(RUN), *arguments], env=variables, check=True, stdout=subprocess.DEVNULL)
    seconds = perf_counter() - start
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": seconds, "processor seconds": used}


def evenly_spread(jobs: Sequence[Job], count: int) -> list[Job]:
    """Return so many of the jobs, at equal distances; 0 means all."""
    count = min(count, len(jobs)) or len(jobs)
    return [jobs[number * len(jobs) // count] for number in range(count)]


def differing_sections(first: Path, second: Path) -> list[str]:
    """Return the sections of results.json in which any number differs."""
    one, other = (json.loads((folder / "results.json").read_text(encoding="utf-8")) for folder in (first, second))
    return [key for key in OUTCOME if json.dumps(one.get(key)) != json.dumps(other.get(key))]


if __name__ == "__main__":
    main()
