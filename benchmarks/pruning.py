"""Time and peak memory of pruning, next to a dense forward pass of the same tokens and to the published procedure.

python benchmarks/pruning.py                              # every section
python benchmarks/pruning.py orders --models gemma3 --tokens 8192 --rounds 5
python benchmarks/pruning.py scoring

Everything that is compared runs in turn in one process; peak memory is that of a process of its own. Tables show
medians with the lowest and highest value, and go to `outputs/benchmarks/SECTION.md` and `.json`.
"""

import argparse
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from measure import Row, Table, interleaved, machine, timed, write
from scoring import OneMatrix
from workload import (
    ARRIVAL,
    BATCH_SIZE,
    BLOCK,
    CHECKPOINTED,
    DENSE,
    FAMILIES,
    GEMMA,
    GRADIENTS,
    LANGUAGE_AWARE,
    LLAMA,
    LOOKING,
    ONESHOT,
    PUBLISHED,
    PUBLISHED_BATCHES,
    RECOMMENDED,
    SPARSEGPT,
    WAYS,
    WITH_UPDATES,
    Workload,
    peak_memory,
    tokens_of,
)

from mwanda.statistics import LanguageStatistics, Needs, SequenceSums


OUTPUT = Path(__file__).resolve().parents[1] / "outputs" / "benchmarks"
LANGUAGES = (1, 2, 5, 15, 50, 150, 500)
GROWTH = (1, 2, 4, 8)
SHAPES = {
    "Gemma 3 270M": [(256, 640), (1024, 640), (640, 1024), (2048, 640), (640, 2048)],
    "Llama 3.2 1B": [(512, 2048), (2048, 2048), (8192, 2048), (2048, 8192)],
}


def orders(options: argparse.Namespace) -> list[Table]:
    """Compare the three orders with the published procedure, on models of real size."""
    every = {
        "1": PUBLISHED,
        "8": PUBLISHED_BATCHES,
        "block": BLOCK,
        "arrival": ARRIVAL,
        "checkpoint": CHECKPOINTED,
        "oneshot": ONESHOT,
    }
    ways = [DENSE, *(every[name] for name in options.ways)]
    return [_compare(f"{model}, wanda, 50 %", _workload(options, model), ways, options) for model in options.models]


def methods(options: argparse.Namespace) -> list[Table]:
    """Compare the language-aware criterion and schedule with Wanda's uniform ones."""
    ways = [ARRIVAL, LANGUAGE_AWARE, DENSE]
    return [_compare(f"{model}, 50 %", _workload(options, model), ways, options) for model in options.models]


def recommended(options: argparse.Namespace) -> list[Table]:
    """Compare the recommended methods and SparseGPT, gradients and solvers included, with Wanda in the same order."""
    ways = [BLOCK, RECOMMENDED, WITH_UPDATES, SPARSEGPT, DENSE]
    workloads = [_workload(options, model) for model in options.models]
    return [_compare(f"{each.model}, 50 %, order=block", each, ways, options) for each in workloads]


def gradients(options: argparse.Namespace) -> list[Table]:
    """Compare a dense pass with what the gradients of an eighth of the text add to Wanda."""
    ways = [DENSE, BLOCK, GRADIENTS]
    return [_compare(f"{model}, wanda, 50 %", _workload(options, model), ways, options) for model in options.models]


def schedules(options: argparse.Namespace) -> list[Table]:
    """Compare what schedules look at before anything is pruned with a dense pass of all tokens."""
    ways = [DENSE, *LOOKING]
    return [_compare(f"{model}, signals alone", _workload(options, model), ways, options) for model in options.models]


def families(options: argparse.Namespace) -> list[Table]:
    """Compare the three orders on small models of each family."""
    rows: list[Row] = []
    for family in options.families:
        workload = _workload(options, family)
        rows += _rows(family, workload, [DENSE, BLOCK, ARRIVAL, ONESHOT], options.rounds, memory=False)
    return [Table("small random models, wanda, 50 %", DENSE, rows=rows)]


def languages(options: argparse.Namespace) -> list[Table]:
    """Divide the same tokens among more and more languages."""
    workload = _workload(options, "llama")
    task = workload.build()
    task.keep()
    vocabulary, length = task.model.get_input_embeddings().weight.shape[0], options.length
    # One sequence at least for each language: shorter ones, not more tokens.
    while options.tokens // length < LANGUAGES[-1] and length > 2:
        length //= 2
    parts = {count: tokens_of(count, options.tokens, length, vocabulary) for count in LANGUAGES}

    def pruning(way: str) -> Callable[[int], Callable[[], float]]:
        return lambda count: timed(lambda: WAYS[way](replace(task, calibration=parts[count])))

    inputs = [torch.randn(*batch.tokens.shape, 2048) for batch in parts[1].batches(BATCH_SIZE)]

    def observing(count: int) -> Callable[[], float]:
        def observe() -> None:
            statistics = LanguageStatistics.zeros(count, 2048, needs=Needs.NORMS)
            for values, batch in zip(inputs, parts[count].batches(BATCH_SIZE), strict=True):
                statistics.add(SequenceSums.of(values, Needs.NORMS), batch.languages)

        return timed(observe)

    tables, text = [], f"{options.tokens} tokens in sequences of {length}"
    for title, way, between in (
        (ARRIVAL, pruning(ARRIVAL), task.restore),
        (LANGUAGE_AWARE, pruning(LANGUAGE_AWARE), task.restore),
        ("statistics of 2048 features alone", observing, lambda: None),
    ):
        seconds = interleaved({str(count): way(count) for count in LANGUAGES}, options.rounds, between)
        rows = [Row(f"{count} languages", taken, seconds["1"]) for count, taken in seconds.items()]
        tables.append(Table(f"{title}, {text}", "one language", rows=rows))
    return tables


def tokens(options: argparse.Namespace) -> list[Table]:
    """Grow the calibration set."""
    base = _workload(options, "llama", blocks=4)
    sizes = {f"{base.tokens * factor} tokens": replace(base, tokens=base.tokens * factor) for factor in GROWTH}
    return [_growth("more tokens, a Llama of 4 small blocks, wanda, 50 %", sizes.items(), options)]


def blocks(options: argparse.Namespace) -> list[Table]:
    """Grow the model."""
    sizes = {f"{4 * factor} blocks": _workload(options, "llama", blocks=4 * factor) for factor in GROWTH}
    return [_growth("more blocks, a small Llama, wanda, 50 %", sizes.items(), options)]


def scoring(options: argparse.Namespace) -> list[Table]:
    """Compare scoring and masking alone, without any forward pass."""
    tables = []
    for name, shapes in options.shapes.items():
        table = Table(f"scoring, masking and zeroing, matrices of {name}", "abs, multiply, stable sort, scatter", True)
        for shape in shapes:
            matrix = OneMatrix(*shape)
            matrix.check()
            seconds = interleaved({"plain": matrix.plain, "ours": matrix.ours}, options.rounds)
            table.rows.append(Row(f"{shape[0]} × {shape[1]}", seconds["ours"], seconds["plain"]))
        tables.append(table)
    return tables


SECTIONS = {
    each.__name__: each
    for each in (orders, methods, recommended, gradients, schedules, families, languages, tokens, blocks, scoring)
}


def _workload(options: argparse.Namespace, model: str, blocks: int | None = None) -> Workload:
    return Workload(model, options.tokens, options.length, blocks=blocks, threads=options.threads)


def _compare(title: str, workload: Workload, ways: Sequence[str], options: argparse.Namespace) -> Table:
    rows = _rows("", workload, ways, options.rounds, options.memory)
    return Table(f"{title}, {workload.tokens} tokens", ways[0], rows=rows)


def _growth(title: str, sizes: Iterable[tuple[str, Workload]], options: argparse.Namespace) -> Table:
    ways = [DENSE, PUBLISHED_BATCHES, BLOCK, ARRIVAL]
    parts = [_rows(label, workload, ways, options.rounds, options.memory) for label, workload in sizes]
    return Table(title, f"{DENSE} of the same size", rows=[row for part in parts for row in part])


def _rows(label: str, workload: Workload, ways: Sequence[str], rounds: int, memory: bool) -> list[Row]:
    """Return a row for each way; the first is the base of all."""
    memories = {way: peak_memory(workload, way) if memory else None for way in ways}
    task = workload.build()
    task.keep()
    seconds = interleaved({way: timed(lambda way=way: WAYS[way](task)) for way in ways}, rounds, task.restore)
    prefix = f"{label}, " if label else ""
    return [Row(f"{prefix}{way}", seconds[way], seconds[ways[0]], memories[way]) for way in ways]


def main() -> None:
    """Run the sections that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--tokens", type=int, default=4096, help="calibration tokens in all")
    parser.add_argument("--length", type=int, default=128, help="tokens in a sequence")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds, after one to warm up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    parser.add_argument("--models", nargs="+", default=[GEMMA, LLAMA], help="of orders and methods")
    ways = ["1", "8", "block", "arrival", "checkpoint", "oneshot"]
    parser.add_argument(
        "--ways", nargs="+", default=ways, choices=ways, help="of orders; 1 and 8 are the published one"
    )
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES, help="of families")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="measure time alone")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder of the tables")
    options = parser.parse_args(namespace=argparse.Namespace(shapes=SHAPES))
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"there is no section {', '.join(sorted(unknown))}; choose from {', '.join(SECTIONS)}")
    torch.set_num_threads(options.threads)
    logging.getLogger("mwanda").setLevel(logging.ERROR)  # with one language a schedule has nothing to spread
    for name in options.sections or SECTIONS:
        metadata = {**machine(options.threads), "tokens": options.tokens, "length": options.length}
        tables = SECTIONS[name](options)
        write(options.output, name, {**metadata, "batch_size": BATCH_SIZE, "rounds": options.rounds}, tables)
        print((options.output / f"{name}.md").read_text(), flush=True)


if __name__ == "__main__":
    main()
