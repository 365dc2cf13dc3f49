"""What the sums of squares of a mixture's experts cost: each expert alone beside all of them together.

    python benchmarks/expert_sums.py --experts 8 64 128 --rounds 5

`alone` makes the sums of one expert and language after the other, as calibration does on the CPU; `together` adds them
in one tensor, as it does on an accelerator. Both see the same inputs, once those of all tokens (`first` matrices) and
once a row for each choice, in the order of experts (`second` matrices). Ways take turns in each round, in one process;
what is printed are medians, and ratios within a round with the lowest and the highest.
"""

import argparse
from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter

import torch
from torch import Tensor

from mwanda.pruner.experts import in_order_of_experts
from mwanda.statistics import UNIFORM, LanguageStatistics, Needs, SequenceSums
from mwanda.statistics.experts import ExpertStatistics


LANGUAGES = 15


def alone(inputs: Tensor, chosen: Tensor, languages: Tensor, experts: int, *, in_order: bool) -> Tensor:
    """Return the sums of squares, experts × languages × features, made one after the other."""
    statistics = [LanguageStatistics.zeros(LANGUAGES, inputs.shape[-1], needs=Needs.NOTHING) for _ in range(experts)]
    choices = chosen.flatten(0, 1)
    order = in_order_of_experts(choices)
    tokens = order // choices.shape[1]
    of_tokens = languages.repeat_interleave(chosen.shape[1])[tokens]
    runs, sizes = torch.unique_consecutive(choices.flatten()[order] * LANGUAGES + of_tokens, return_counts=True)
    parts = (inputs if in_order else tokens).split(sizes.tolist())
    for run, part in zip(runs.tolist(), parts, strict=True):
        values = part if in_order else inputs[part]
        sums = SequenceSums.of(values[None], Needs.NOTHING)
        statistics[run // LANGUAGES].add(sums, torch.tensor([run % LANGUAGES]))
    return torch.stack([each.sum_squares for each in statistics])


def together(inputs: Tensor, chosen: Tensor, languages: Tensor, experts: int, *, in_order: bool) -> Tensor:
    """Return the same, added in one tensor."""
    statistics = ExpertStatistics(experts, LANGUAGES, inputs.shape[-1], torch.device("cpu"), Needs.NOTHING, UNIFORM)
    statistics.add(inputs, chosen, languages, in_order)
    return torch.stack([part.sum_squares for part in statistics.parts])


def measure(experts: int, features: int, batch: int, length: int, rounds: int) -> Mapping[str, list[list[float]]]:
    """Return the seconds of both ways in each round, for first and second matrices."""
    generator = torch.Generator().manual_seed(0)
    choices = min(8, experts // 4)
    chosen = torch.rand(batch, length, experts, generator=generator).topk(choices).indices
    languages = torch.arange(batch) % LANGUAGES
    found = {}
    for name, rows in (("first", batch * length), ("second", batch * length * choices)):
        inputs = torch.randn(rows, features, generator=generator)

        def timed(way: Callable[..., Tensor], name: str = name, inputs: Tensor = inputs) -> tuple[float, Tensor]:
            start = perf_counter()
            sums = way(inputs, chosen, languages, experts, in_order=name == "second")
            return perf_counter() - start, sums

        torch.testing.assert_close(timed(alone)[1], timed(together)[1], rtol=1e-5, atol=1e-3)
        found[name] = [[timed(way)[0] for way in (alone, together)] for _ in range(rounds)]
    return found


def main() -> None:
    """Print a line for each number of experts and place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 64, 128])
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=8, help="sequences")
    parser.add_argument("--length", type=int, default=128, help="tokens a sequence")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for experts in options.experts:
        found = measure(experts, options.features, options.batch, options.length, options.rounds)
        for place, seconds in found.items():
            ratios = [ours / theirs for theirs, ours in seconds]
            span = f"{median(ratios):.2f} ({min(ratios):.2f} – {max(ratios):.2f})"
            mine, theirs = (1e3 * median(each) for each in zip(*seconds, strict=True))
            print(
                f"{experts:4} experts, {place:6}  alone {mine:7.1f} ms  together {theirs:7.1f} ms  {span}", flush=True
            )


if __name__ == "__main__":
    main()
