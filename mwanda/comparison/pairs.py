"""Pairs across runs: a configuration against its baseline, sentence by sentence, over the seeds that both have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mwanda.comparison.configurations import Configuration
from mwanda.comparison.records import Run
from mwanda.errors import ComparisonError
from mwanda.evaluation.sentence_losses import FILE, SERIES, SentenceLosses
from mwanda.evaluation.significance import Pair, aggregate_pairs, compare


Losses = Mapping[str, SentenceLosses]


@dataclass(frozen=True)
class Paired:
    """One configuration against another, on the same sentences.

    Args:
        seeds: that both have; losses are means over them, so that no sentence counts twice.
        pairs: by language; a positive log-ratio is worse than the baseline.
        ratio: geometric mean over the languages of pruned perplexity over the baseline's.
        low: lower end of its 95 % interval (which sentences were drawn).
        high: upper end.
    """

    seeds: tuple[str, ...]
    pairs: dict[str, Pair]
    ratio: float
    low: float
    high: float

    @property
    def distinguishable(self) -> bool:
        """Whether the interval leaves out "no difference"."""
        return self.low > 1 or self.high < 1

    @property
    def better(self) -> int:
        """Languages significantly better than the baseline (Holm)."""
        return sum(pair.helped for pair in self.pairs.values())

    @property
    def worse(self) -> int:
        """Languages significantly worse than the baseline (Holm)."""
        return sum(pair.hurt for pair in self.pairs.values())


def paired(one: Configuration, baseline: Configuration, languages: Sequence[str]) -> Paired:
    """Compare two configurations sentence by sentence.

    Args:
        one: what is judged.
        baseline: what it is judged by.
        languages: to compare, which both have.

    Raises:
        ComparisonError: they share no seed, a run did not keep its sentences' losses, or texts or tokens differ.
    """
    others = {run.seed: run for run in baseline.runs}
    shared = [(run, others[run.seed]) for run in one.runs if run.seed in others]
    if not shared:
        raise ComparisonError(f"{one.label}: no seed in common with {baseline.label}; run one of them with its seeds")
    mine = over_seeds([_losses(run, languages) for run, _ in shared])
    theirs = over_seeds([_losses(run, languages) for _, run in shared])
    comparison = compare(theirs, mine)
    total = aggregate_pairs(comparison, {})
    seeds = tuple(run.seed for run, _ in shared)
    return Paired(seeds, comparison.pairs, total["ratio"], total["low"], total["high"])


def over_seeds(every: Sequence[Losses]) -> Losses:
    """Return the mean loss of each sentence over runs that differ in the seed.

    Raises:
        ComparisonError: the runs were not measured on the same tokens.
    """
    first = every[0]
    for other in every[1:]:
        for code, losses in first.items():
            if losses.tokens != other[code].tokens:
                raise ComparisonError(f"{code}: seeds were measured on different text or tokens; measure one again")
    return {
        code: replace(
            losses, nats=tuple(sum(each) / len(every) for each in zip(*(e[code].nats for e in every), strict=True))
        )
        for code, losses in first.items()
    }


def _losses(run: Run, languages: Sequence[str]) -> Losses:
    """Return the pruned model's losses on the sentences of each language."""
    path = run.folder / FILE
    if not path.is_file():
        raise ComparisonError(f"{run.name}: has no {FILE}, the loss of every sentence; run it again to compare by it")
    found = _pruned(path)
    missing = [code for code in languages if code not in found]
    if missing:
        raise ComparisonError(f"{run.name}: {FILE} lacks {', '.join(missing[:6])}; run it again to compare by it")
    return {code: found[code] for code in languages}


def _pruned(path: Path) -> dict[str, SentenceLosses]:
    from pyarrow import ArrowInvalid, parquet

    try:
        table = parquet.read_table(path, filters=[("model", "=", "pruned")]).to_pandas()
    except (ArrowInvalid, OSError) as error:
        raise ComparisonError(f"{path}: cannot be read ({error}); run it again to compare by it") from None
    return {
        str(code): SentenceLosses(**{series: tuple(part[series].tolist()) for series in SERIES})
        for code, part in table.groupby("language", sort=False)
    }
