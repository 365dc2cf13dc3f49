"""The comparison in the terminal: the tables of each protocol, and a line of each method over sparsity."""

import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mwanda.comparison import render
from mwanda.comparison.configurations import configurations
from mwanda.comparison.finding import method, sparsity
from mwanda.comparison.records import Settings, find_runs
from mwanda.comparison.tables import Section, sections
from mwanda.comparison.tidy import tidy
from mwanda.errors import ConfigurationError
from mwanda.system.terminal import console


BARS = "▁▂▃▄▅▆▇█"
BROKEN = "×"


def show(
    folders: Sequence[Path], baseline: Settings | None, grouping: str | None, target: Console | None = None
) -> None:
    """Print the comparison of all runs below `folders`, and write nothing.

    Raises:
        ConfigurationError: there is no run, or none is what `baseline` says.
    """
    runs, unfinished = find_runs(folders)
    if not runs:
        raise ConfigurationError("DIR", ", ".join(map(str, folders)), f"none of {len(unfinished)} runs is complete")
    out = target or console()
    every = configurations(runs)
    for section in sections(every, tidy(every), baseline, grouping):
        out.print(_table(section))
        curves = _curves(section)
        if curves is not None:
            out.print(curves)
    for each in unfinished:
        out.print(f"not complete: {each.name} ({each.status}: {each.reason})", markup=False, soft_wrap=True)
    out.print(f"{len(runs)} runs, {len(every)} configurations, {len(unfinished)} not complete")


def sparkline(values: Sequence[float | None], low: float, high: float) -> str:
    """Return a bar for each value between `low` and `high`; a cross where infinite, a blank where missing."""
    span = max(high - low, 1e-9)

    def bar(value: float | None) -> str:
        if value is None or math.isnan(value):
            return " "
        if math.isinf(value):
            return BROKEN
        return BARS[min(max(round((value - low) / span * (len(BARS) - 1)), 0), len(BARS) - 1)]

    return "".join(map(bar, values))


def _table(section: Section) -> Table:
    made = render.comparison(section)
    digest, name, text = section.protocol
    table = Table(title=f"{len(section.languages)} languages of {text}, protocol {name} {digest}")
    for place, heading in enumerate(made.cells):
        table.add_column(heading, justify="right" if place else "left", no_wrap=place == 0)
    escaped = made.cells.map(escape)
    for row in escaped.mask(made.best, "[bold]" + escaped + "[/]").itertuples(index=False):
        table.add_row(*row)
    return table


def _curves(section: Section) -> Table | None:
    """Return the ratio of each method over sparsity, on one logarithmic scale; None where sparsity does not vary."""
    import numpy
    import pandas

    every = section.configurations
    ratios = pandas.DataFrame({
        "method": [method(each) for each in every],
        "sparsity": [sparsity(each) for each in every],
        "ratio": numpy.log(section.means["ratio"]),
    }).dropna()  # fmt: skip
    lines = ratios.pivot_table(index="method", columns="sparsity", values="ratio", aggfunc="last", sort=False)
    lines = lines.sort_index(axis="columns")
    if lines.shape[1] < 2:
        return None
    high = float(lines.where(lines < math.inf).max(axis=None))
    table = Table(title="ratio by sparsity, logarithmic: the lowest bar is nothing lost")
    table.add_column("method")
    table.add_column(" ".join(f"{100 * place:g} %" for place in lines))
    for name, line in lines.iterrows():
        table.add_row(escape(str(name)), sparkline(line.tolist(), 0.0, 1.0 if math.isnan(high) else high))
    return table
