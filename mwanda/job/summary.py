"""The tables that a run ends with."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mwanda.evaluation.task_scores import headline
from mwanda.job.record import Results
from mwanda.languages import Language
from mwanda.languages.ratios import exponential, ratio
from mwanda.system.terminal import console, number


BAR_WIDTH = 30

MARK = "*"
LARGEST = 4
"""Parts of a model that are left dense, of which the summary tells."""


def summary(results: Results, folder: Path, languages: Sequence[Language], target: Console | None = None) -> None:
    """Print languages × dense, pruned and ratio, the sparsity of each block, and where the record is."""
    out = target or console()
    out.print()
    perplexity = results["perplexity"]
    if perplexity:
        out.print(_language_table(perplexity, {language.code: language for language in languages}))
        for line in [*_change(perplexity), *_speed(results.get("evaluation") or {})]:
            out.print(line, markup=False, soft_wrap=True)
    if results.get("tasks"):
        out.print(_task_table(results["tasks"]))
    out.print(_block_table(results["sparsity"]))
    achieved, model, timing = results["sparsity"]["achieved"], results["model"], results["timing"]
    out.print(
        f"{model['id']}: {achieved:.4%} of {model['prunable_parameters']:,} prunable weights are zero "
        f"({model['zeros_before'] / model['prunable_parameters']:.1%} were before); {timing['total']:.0f} s",
        markup=False,  # a path may hold brackets
        soft_wrap=True,
    )
    fuller = results["sparsity"].get("fuller_cells")
    if fuller:
        out.print(
            f"{fuller:,} cells of {results['sparsity']['pattern']} held more zeros than it removes, and keep them"
        )
    if model.get("left_dense"):
        out.print(_left_dense(model), markup=False, soft_wrap=True)
    out.print(f"record: {folder}/results.json", markup=False, soft_wrap=True)


def _left_dense(model: Mapping[str, Any]) -> str:
    """Return how much of the model is left dense, and the largest parts of that."""
    whole, parts = model["parameters"], model["left_dense"]
    largest = sorted(parts, key=lambda part: -int(part["weights"]))[:LARGEST]
    told = "; ".join(f"{part['what']} {part['weights'] / whole:.1%}" for part in largest)
    more = f"; and {len(parts) - len(largest)} more" if len(parts) > len(largest) else ""
    return f"left dense: {sum(part['weights'] for part in parts) / whole:.1%} of all weights ({told}{more})"


def _language_table(perplexity: Mapping[str, Any], languages: dict[str, Language]) -> Table:
    dense, pruned, totals = perplexity["dense"], perplexity["pruned"], perplexity["aggregate"]
    protocol, paired = perplexity["protocol"], perplexity.get("paired") or {}
    lost = {"perplexity": math.inf}  # which a file of JSON cannot say
    pruned = {
        code: each | (lost if code in (perplexity.get("overflowed") or ()) else {}) for code, each in pruned.items()
    }
    table = Table(
        title=f"Perplexity per language ({protocol['corpus']}, protocol {protocol['name']} {protocol['hash']})",
        caption=f"{MARK} significant at 5 %: Wilcoxon signed-rank over sentences, Holm over languages"
        if paired
        else None,
    )
    table.add_column("language")
    table.add_column("family")
    for heading in ("dense", "pruned", "ratio", "95 % interval", "bits/byte"):
        table.add_column(heading, justify="right")
    ratios = {code: ratio(dense[code]["perplexity"], pruned[code]["perplexity"]) for code in dense}
    measured = sorted(each for each in ratios.values() if each is not None)
    for code in sorted(dense, key=lambda each: (ratios[each] is None, ratios[each] or 0.0)):
        language, before, after, change = languages[code], dense[code], pruned[code], ratios[code]
        pair = paired.get(code) or {}
        mark = f" {MARK}" if pair.get("significant") else "  " if paired else ""
        table.add_row(
            f"{code}  {language.name}",
            language.family,
            number(before["perplexity"]),
            number(after["perplexity"]),
            f"[{_colour(change, measured)}]× {number(change)}[/]{mark}",
            _interval(*(exponential(pair.get(end)) for end in ("low", "high"))),
            f"{number(before['bits_per_byte'])} → {number(after['bits_per_byte'])}",
        )
    table.add_section()
    for label, key in (("geometric mean", "geometric_mean"), ("mean", "mean"), ("worst language", "worst")):
        first, last = totals["dense"][key], totals["pruned"][key]
        # The worst language before and after may be two languages, whose ratio would mean nothing.
        codes = [totals[which]["worst_language"] for which in ("dense", "pruned")]
        name = f"{label} ({' → '.join(dict.fromkeys(codes))})" if key == "worst" else label
        overall = "" if key == "worst" and len(set(codes)) > 1 else f"× {number(ratio(first, last))}"
        every = totals.get("paired") or {}
        ends = _interval(every.get("low"), every.get("high")) if key == "geometric_mean" and every else ""
        overall += "  " if overall and paired else ""  # below the marks
        table.add_row(f"[bold]{name}[/]", "", number(first), f"[bold]{number(last)}[/]", overall, ends, "")
    return table


def _change(perplexity: Mapping[str, Any]) -> list[str]:
    """Return what the changes come to over all languages."""
    from mwanda.evaluation.significance import LEVEL

    change = perplexity["aggregate"].get("paired")
    if not change:
        return []
    count, spread = change["languages"], change["spread"]
    lines = [
        f"spread of the ratios (logarithm): {number(spread['log_ratio'])} "
        f"({_interval(spread['low'], spread['high'])}), from {change['best_language']} "
        f"× {number(change['best_ratio'])} to {change['worst_language']} × {number(change['worst_ratio'])}",
        f"significantly hurt: {round(change['share_hurt'] * count)} of {count} languages, "
        f"helped: {round(change['share_helped'] * count)}",
    ]
    lost = perplexity.get("overflowed") or ()
    if lost:
        lines.append(f"infinite perplexity after pruning, counted as hurt: {', '.join(lost)}")
    units = max(pair["units"] for pair in perplexity["paired"].values())
    if 2.0 ** (1 - units) * count >= LEVEL:  # the smallest p of the signed-rank test, after Holm
        lines.append(
            f"no ratio could be: {units} sentences of a language are too few to test {count} languages; "
            "measure more (evaluation.sentences)"
        )
    by = change["by_calibration"]
    if len(by) > 1:
        seen, unseen = by["seen"], by["unseen"]
        lines.append(
            f"calibrated on × {_with_interval(seen)}, {seen['languages']} of {count} languages; "
            f"not calibrated on × {_with_interval(unseen)}, {unseen['languages']} of {count}"
        )
    return lines


def _speed(evaluation: Mapping[str, Any]) -> list[str]:
    told = (f"{which} {each['tokens_per_second']:,.0f}" for which, each in evaluation.items())
    return [f"evaluation, tokens a second: {', '.join(told)}"] if evaluation else []


def _with_interval(group: Mapping[str, Any]) -> str:
    return f"{number(group['ratio'])} ({_interval(group['low'], group['high'])})"


def _interval(low: float | None, high: float | None) -> str:
    return "–" if low is None and high is None else f"{number(low)} – {number(high)}"


def _task_table(tasks: Mapping[str, Any]) -> Table:
    """One row for each task, by the one of its metrics that is reported most, and the mean of each suite."""
    table = Table(title="Tasks (standard errors; the difference is paired over documents)")
    for heading in ("task", "metric"):
        table.add_column(heading)
    for heading in ("documents", "dense", "pruned", "difference"):
        table.add_column(heading, justify="right")
    versions = ("dense", "pruned", "difference")
    suites: dict[tuple[str, str], list[str]] = {}
    for name, about in tasks["about"].items():
        metric = headline(tasks["dense"][name])
        suites.setdefault((about["suite"], metric), []).append(name)
        cells = [_with_error(tasks[version][name], metric, signed=version == "difference") for version in versions]
        table.add_row(name, metric, str(about["documents"]), *cells)
    table.add_section()
    for (suite, metric), names in suites.items():
        if len(names) > 1:
            found = [[tasks[version][name][metric] for name in names] for version in versions]
            means = [None if None in values else sum(values) / len(values) for values in found]
            cells = [number(means[0], 3), number(means[1], 3), number(means[2], 3, signed=True)]
            table.add_row(f"[bold]{suite}, mean of {len(names)}[/]", metric, "", *cells)
    return table


def _with_error(metrics: dict[str, Any], metric: str, *, signed: bool) -> str:
    name, comma, filtered = metric.partition(",")
    return f"{number(metrics[metric], 3, signed)} ± {number(metrics[f'{name}_stderr{comma}{filtered}'], 3)}"


def _colour(ratio: float | None, ranked: Sequence[float]) -> str:
    """Green for the third of languages that lost least, red for the third that lost most."""
    if ratio is None:
        return "red"
    position = ranked.index(ratio) / max(1, len(ranked) - 1)
    return "green" if position < 1 / 3 else "yellow" if position < 2 / 3 else "red"


def _block_table(sparsity: Mapping[str, Any]) -> Table:
    table = Table(title=f"Sparsity per block ({sparsity['pattern']}, target {sparsity['target']:g})", box=None)
    table.add_column("block", justify="right")
    table.add_column("")
    table.add_column("achieved", justify="right")
    for block in sparsity["per_layer"]:
        filled = round(block["achieved"] * BAR_WIDTH)
        bar = f"[cyan]{'█' * filled}[/][dim]{'░' * (BAR_WIDTH - filled)}[/]"
        table.add_row(str(block["layer"]), bar, f"{block['achieved']:.4f}")
    return table
