"""What a comparison has found, in sentences that claim no more than was measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mwanda.comparison.configurations import Configuration, name_of
from mwanda.comparison.pairs import Paired
from mwanda.comparison.records import OF_THE_METHOD, Settings


@dataclass(frozen=True)
class Candidate:
    """A configuration with its ratio to the dense model and, where it could be made, its pair with the baseline."""

    configuration: Configuration
    ratio: float
    baseline: Configuration | None
    paired: Paired | None


def findings(candidates: Sequence[Candidate], baseline: Settings | None, languages: int) -> list[str]:
    """Return one sentence for each sparsity (model, pattern, …), that with the most configurations first.

    Within one, the best configuration is that with the lowest geometric mean of the ratios to the dense model. It is
    chosen by the numbers that judge it; the sentence says among how many.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Candidate]] = {}
    for each in candidates:
        groups.setdefault(_place(each.configuration, baseline), []).append(each)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), _distance(item[1][0].configuration)))
    return [_sentence(members, languages) for _, members in ordered]


def _sentence(members: Sequence[Candidate], languages: int) -> str:
    place = f"At {100 * sparsity(members[0].configuration):g} % sparsity"
    if len({_model(each) for each in members}) == 1 and "model" in members[0].configuration.settings:
        place += f" of {_model(members[0])}"
    judged = [each for each in members if each.baseline is not None]
    best = min(judged or members, key=lambda each: each.ratio)
    name = method(best.configuration)
    over = f"{languages} language{'s' if languages != 1 else ''}"
    times = (
        f"perplexity {best.ratio:.2f} times the dense model's" if math.isfinite(best.ratio) else "a model that broke"
    )
    if best.baseline is None:
        if len(members) == 1:
            return f"{place}, {name} leaves {times} over {over}; there is no baseline run to compare it with."
        return (
            f"{place}, {name} has the lowest ratio of {len(members)} configurations, {times} over {over}; there is no "
            "baseline run, so nothing says whether the difference is more than noise."
        )
    other = method(best.baseline)
    chosen = (
        f"best of {len(judged)} against the baseline {other}" if len(judged) > 1 else f"against the baseline {other}"
    )
    if best.paired is None:
        return f"{place}, {name} ({chosen}) leaves {times} over {over}; the two could not be paired by sentences."
    pair = best.paired
    amount = f"{100 * abs(pair.ratio - 1):.1f} % {'lower' if pair.ratio < 1 else 'higher'}"
    interval = f"95 % interval {_signed(pair.low)} to {_signed(pair.high)}"
    seeds = f"{len(pair.seeds)} seed{'s' if len(pair.seeds) != 1 else ''}"
    if not pair.distinguishable:
        return (
            f"{place}, {name} ({chosen}) is not distinguishable from it: perplexity {_signed(pair.ratio)}, {interval}, "
            f"over {over}, {seeds}."
        )
    return (
        f"{place}, {name} ({chosen}) has {amount} perplexity, {interval}, over {over}, {seeds}; significantly better "
        f"in {pair.better} and worse in {pair.worse} of them (Holm)."
    )


def method(configuration: Configuration) -> str:
    """Return what tells a configuration from others at the same sparsity."""
    return name_of(configuration.without("sparsity")) or "all runs"


def sparsity(configuration: Configuration) -> float:
    """Return the sparsity that was asked for."""
    return float(configuration.runs[0].settings["sparsity"])


def _place(configuration: Configuration, baseline: Settings | None) -> tuple[tuple[str, str], ...]:
    """Return what two configurations must share to be compared: all that a method is not."""
    own = ("criterion", "schedule", *(baseline or {}))
    rest = {key: value for key, value in configuration.settings.items() if key.partition(".")[0] not in own}
    return tuple(sorted((key, value) for key, value in rest.items() if key not in OF_THE_METHOD))


def _model(candidate: Candidate) -> str | None:
    return candidate.configuration.settings.get("model")


def _distance(configuration: Configuration) -> float:
    return abs(sparsity(configuration) - 0.5)


def _signed(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %".replace("-", "−")
