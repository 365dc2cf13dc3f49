"""The comparing table as text: Markdown and LaTeX."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mwanda.comparison.tables import Section


if TYPE_CHECKING:
    from pandas import DataFrame

HEADINGS = ("dense", "pruned", "ratio", "worst", "spread", "hurt", "seen", "unseen", "baseline")
PERCENT = ("hurt", "baseline")
LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}"}
LATEX |= {"^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "×": r"$\times$", "±": r"$\pm$", "−": r"$-$"}
LATEX |= {"∞": r"$\infty$", "…": r"\dots{}"}
"""Wider than the escaping of pandas, which leaves signs that pdflatex does not know."""

LARGEST = 1e7
"""Above which a number is written with an exponent."""


@dataclass(frozen=True, eq=False)
class Table:
    """Cells, all of them text, and which of them are the best of their column, to be set in bold."""

    cells: "DataFrame"
    best: "DataFrame"


def comparison(section: Section) -> Table:
    """Return the table of one protocol, without the columns that nothing is known of."""
    import pandas

    order = [*HEADINGS, *(f"group:{name}" for name in section.groups)]
    means = section.means[order].dropna(axis="columns", how="all")
    cells = {name: _cells(section, name) for name in means}
    lead = {"configuration": [each.label for each in section.configurations]}
    if any(len(each.runs) > 1 for each in section.configurations):
        lead["n"] = [str(len({run.seed for run in each.runs})) for each in section.configurations]
    text = pandas.DataFrame(lead | cells)
    best = _best(section, means).reindex(columns=text.columns, fill_value=False)
    names = ["to baseline" if name == "baseline" else name.removeprefix("group:") for name in text]
    return Table(text.set_axis(names, axis="columns"), best.set_axis(names, axis="columns"))


def markdown(table: Table) -> str:
    """Return a table in Markdown, the best of each column in bold."""
    return plain(table.cells.mask(table.best, "**" + table.cells + "**"))


def plain(cells: "DataFrame", words: int = 1) -> str:
    """Return cells of text in Markdown: first the columns of words, then those of numbers."""
    aligned = ["left"] * words + ["right"] * (cells.shape[1] - words)
    escaped = cells.map(lambda cell: " ".join(cell.replace("|", "\\|").split()))
    return str(escaped.to_markdown(index=False, colalign=aligned, disable_numparse=True)) + "\n"


def latex(table: Table, caption: str) -> str:
    r"""Return a table in LaTeX for the package `booktabs`, the best of each column in bold."""
    bold = table.best.replace({True: "textbf:--rwrap;", False: ""})
    style = table.cells.style.hide(axis="index").format(escaped).format_index(escaped, axis="columns")
    styled = style.apply(lambda _: bold, axis=None)
    columns = "l" + "r" * (table.cells.shape[1] - 1)
    return str(
        styled.to_latex(hrules=True, column_format=columns, caption=escaped(caption), position_float="centering")
    )


def escaped(text: str) -> str:
    """Return text as LaTeX shows it."""
    return "".join(LATEX.get(character, character) for character in text)


def number(value: float | None) -> str:
    """Return a number with as many digits as mean something beside a perplexity."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    if abs(value) >= LARGEST:
        return f"{value:.2e}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"


def _best(section: Section, means: "DataFrame") -> "DataFrame":
    """Return what is lowest of a column among configurations that remove as much, of the same model."""
    keys = ("model", "pattern", "sparsity")
    kinds = [[each.settings.get(key, "") for each in section.configurations] for key in keys]
    values = means.fillna(math.inf).round(12)  # equal, whatever the last digits of sums
    alike = values.groupby(kinds)
    best = values.eq(alike.transform("min")) & alike.transform("nunique").gt(1)
    return best.drop(columns=["dense", "baseline"], errors="ignore")


def _cells(section: Section, name: str) -> list[str]:
    worst = section.worst if name == "worst" else [""] * len(section.configurations)
    numbers = zip(section.means[name], section.deviations[name], worst, strict=True)
    return [_cell(name, mean, deviation, languages) for mean, deviation, languages in numbers]


def _cell(name: str, mean: float, deviation: float, languages: str) -> str:
    if math.isnan(mean):
        return "–"
    if name in PERCENT:
        more = f" ± {100 * deviation:.1f}" if deviation > 1e-9 else ""
        return f"{100 * mean:{'+' if name == 'baseline' else ''}.1f}{more} %" if math.isfinite(mean) else "∞"
    return f"{number(mean)}{'' if math.isnan(deviation) else f' ± {number(deviation)}'} {languages}".strip()
