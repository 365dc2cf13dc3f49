"""Rows as text: Markdown and LaTeX."""

import math
from dataclasses import dataclass
from typing import Any

from mwanda.comparison.statistics import Estimate
from mwanda.comparison.tables import Section, Summary


HEADINGS = {
    "dense": "dense",
    "pruned": "pruned",
    "ratio": "ratio",
    "worst": "worst",
    "spread": "spread",
    "hurt": "hurt",
    "seen": "seen",
    "unseen": "unseen",
    "baseline": "to baseline",
}
PERCENT = ("hurt", "baseline")
LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}"}
LATEX |= {"^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "×": r"$\times$", "±": r"$\pm$", "−": r"$-$"}
LATEX |= {"∞": r"$\infty$", "…": r"\dots{}"}


@dataclass(frozen=True)
class Table:
    """Headings and cells, all of them text; the best of a column is known, to be set in bold."""

    headings: list[str]
    rows: list[list[str]]
    best: set[tuple[int, int]]


def comparison(section: Section) -> Table:
    """Return the table of one protocol, without the columns that nothing is known of."""
    names = [*HEADINGS, *(f"group:{name}" for name in section.groups)]
    known = [name for name in names if any(row.values.get(name) is not None for row in section.rows)]
    several = any(len(row.configuration.runs) > 1 for row in section.rows)
    headings = ["configuration", *(["n"] if several else []), *(HEADINGS.get(name, name[6:]) for name in known)]
    lead = 2 if several else 1
    rows, best = [], set()
    for row in section.rows:
        count = [str(len(row.configuration.by_seed))] if several else []
        rows.append([row.configuration.label, *count, *(_cell(row, name) for name in known)])
    for place, name in enumerate(known):
        # Better only means something among configurations that remove as much, of the same model.
        alike: dict[tuple[str | None, ...], dict[int, float]] = {}
        for at, row in enumerate(section.rows):
            kind = tuple(row.configuration.settings.get(key) for key in ("model", "pattern", "sparsity"))
            alike.setdefault(kind, {})[at] = _mean(row.values.get(name))
        for values in alike.values() if name not in ("dense", "baseline") else ():
            if len(set(values.values())) > 1:
                best |= {(at, lead + place) for at, value in values.items() if value == min(values.values())}
    return Table(headings, rows, best)


def markdown(table: Table) -> str:
    """Return a table in Markdown, the best of each column in bold."""
    rows = [
        [f"**{cell}**" if (at, place) in table.best else cell for place, cell in enumerate(row)]
        for at, row in enumerate(table.rows)
    ]
    lines = [table.headings, ["---", *["---:"] * (len(table.headings) - 1)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def latex(table: Table, caption: str) -> str:
    r"""Return a table in LaTeX for the package `booktabs`, the best of each column in bold."""
    rows = [
        [
            rf"\textbf{{{escaped(cell)}}}" if (at, place) in table.best else escaped(cell)
            for place, cell in enumerate(row)
        ]
        for at, row in enumerate(table.rows)
    ]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.headings) - 1)}}}",
        r"\toprule",
        " & ".join(map(escaped, table.headings)) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Return text as LaTeX shows it."""
    return "".join(LATEX.get(character, character) for character in text)


def summary_rows(section: Section) -> list[dict[str, Any]]:
    """Return the numbers of a table, a row for each configuration and column."""
    return [
        {
            "protocol": section.protocol[0],
            "configuration": row.configuration.label,
            "column": name.replace("group:", ""),
            "mean": estimate.mean,
            "standard_deviation": estimate.deviation,
            "n": estimate.n,
        }
        for row in section.rows
        for name, estimate in row.values.items()
        if estimate is not None
    ]


LARGEST = 1e7
"""Above which a number is written with an exponent."""

SUMMARY = ("protocol", "configuration", "column", "mean", "standard_deviation", "n")


def number(value: float | None) -> str:
    """Return a number with as many digits as mean something beside a perplexity."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    if abs(value) >= LARGEST:
        return f"{value:.2e}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"


def _cell(row: Summary, name: str) -> str:
    estimate = row.values.get(name)
    if estimate is None:
        return "–"
    if name in PERCENT:
        deviation = "" if not estimate.deviation else f" ± {100 * estimate.deviation:.1f}"
        sign = "+" if name == "baseline" else ""
        return f"{100 * estimate.mean:{sign}.1f}{deviation} %" if math.isfinite(estimate.mean) else "∞"
    text = number(estimate.mean) + ("" if estimate.deviation is None else f" ± {number(estimate.deviation)}")
    languages = "/".join(dict.fromkeys(row.worst_languages)) if name == "worst" else ""
    return f"{text} {languages}".strip()


def _mean(estimate: Estimate | None) -> float:
    return math.inf if estimate is None else estimate.mean
