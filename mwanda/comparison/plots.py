"""Pictures of a comparison, as PNG and SVG. matplotlib is imported when the first of them is drawn.

Colours are those of Okabe and Ito, which people with any colour vision tell apart; lines also differ in their marks.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from mwanda.system.files import atomic


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame


PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C564B")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", ":", "-.")
QUIET, FAINT = "#6E6E6E", "#BDBDBD"
COLOURED = 8
"""Lines that can be told apart by colour and mark; with more, only the outermost are."""

LONGEST_LINE = 100
"""Characters of a name that are below a picture side by side."""

LONGEST_MARKED = 40
"""Points of a line above which its marks would cover it."""

Series = dict[str, dict[float, float]]
"""By the name of a line its values over x."""

STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "mwanda",
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Dots:
    """One row of a strip: a value for each language, their centre, and what the centre may be off by."""

    label: str
    values: dict[str, float]
    centre: float
    deviation: float | None = None


@contextmanager
def _figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> Iterator[tuple[Any, Any]]:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: Any = STYLE  # matplotlib's own type lists every key there is
    with rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots(rows, columns, squeeze=False, **options)


def save(figure: "Figure", folder: Path, name: str) -> str:
    """Write a picture as PNG and SVG, each whole or not at all; return the name of the PNG."""
    for suffix, options in ((".png", {"dpi": 150}), (".svg", {"metadata": {"Date": None}})):
        with atomic(folder / f"{name}{suffix}") as temporary:
            figure.savefig(temporary, format=suffix[1:], **options)
    return f"{name}.png"


def strip(rows: Sequence[Dots], title: str, axis: str, folder: Path, name: str, reference: float | None = None) -> str:
    """Draw a dot for each language in each configuration, on a logarithmic axis, best configuration on top."""
    ordered = sorted(rows, key=lambda row: row.centre, reverse=True)
    with _figure(8.5, 1.5 + 0.42 * len(ordered)) as (figure, axes):
        plot = axes[0, 0]
        for place, row in enumerate(ordered):
            finite = {code: value for code, value in row.values.items() if math.isfinite(value)}
            heights = [place + 0.28 * offset for offset in _jitter(len(finite))]
            plot.scatter(list(finite.values()), heights, s=16, color=PALETTE[0], alpha=0.55, linewidths=0)
            if row.deviation and not math.isnan(row.deviation) and math.isfinite(row.centre):
                plot.errorbar(row.centre, place, xerr=row.deviation, color="black", capsize=3, linewidth=1, zorder=3)
            if math.isfinite(row.centre):
                plot.scatter(row.centre, place, marker="D", s=34, color="black", zorder=4)
            for code, side in zip(_outermost(finite), ("right", "left"), strict=False):
                height = heights[list(finite).index(code)]
                away = (-5 if side == "right" else 5, 0)
                plot.annotate(
                    code,
                    (finite[code], height),
                    away,
                    textcoords="offset points",
                    fontsize=7,
                    color=QUIET,
                    va="center",
                    ha=side,
                )
        if reference is not None and math.isfinite(reference):
            plot.axvline(reference, color=PALETTE[1], linestyle="--", linewidth=1, label="baseline")
        _logarithmic(plot, "x", [value for row in ordered for value in row.values.values()])
        plot.scatter([], [], s=16, color=PALETTE[0], alpha=0.55, linewidths=0, label="a language")
        plot.scatter([], [], marker="D", s=34, color="black", label="geometric mean (± deviation over seeds)")
        infinite = [sum(not math.isfinite(value) for value in row.values.values()) for row in ordered]
        notes = [f"\n({count} infinite, not shown)" if count else "" for count in infinite]
        labels = [row.label + note for row, note in zip(ordered, notes, strict=True)]
        plot.set_yticks(range(len(ordered)), labels)
        plot.set_ylim(-0.6, len(ordered) - 0.4)
        plot.margins(x=0.12)
        plot.grid(axis="y", visible=False)
        plot.set_xlabel(axis)
        figure.suptitle(title, fontsize=11, fontweight="bold")
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)
        return save(figure, folder, name)


def heatmap(
    values: "DataFrame",
    title: str,
    axis: str,
    folder: Path,
    name: str,
    *,
    diverging: bool,
    numbers: bool = True,
    below: str = "",
) -> str:
    """Draw rows (languages) by columns; a diverging scale has its middle at zero."""
    import numpy as np

    columns, grid = list(values.columns), values.to_numpy(dtype=float)
    finite = grid[np.isfinite(grid)]
    # One language that is off the scale must not take the colours of all others.
    top = float(np.quantile(np.abs(finite), 0.98)) if finite.size else 1.0
    low = -top if diverging else (float(finite.min()) if finite.size else 0.0)
    longest = max(map(len, columns))
    width = max(5.0, 2.2 + len(columns) * (0.62 if numbers else 0.3))
    with _figure(width, 1.6 + 0.07 * min(longest, 30) + 0.17 * max(len(values), 4)) as (figure, axes):
        plot = axes[0, 0]
        colours = "PuOr_r" if diverging else "cividis"
        image = plot.imshow(grid, aspect="auto", cmap=colours, vmin=low, vmax=max(top, low + 1e-9))
        plot.set_yticks(range(len(values)), list(values.index), fontsize=7)
        steep = longest > 6
        plot.set_xticks(range(len(columns)), columns, fontsize=8, rotation=40 if steep else 0,
                        ha="right" if steep else "center", rotation_mode="anchor" if steep else None)  # fmt: skip
        plot.grid(visible=False)
        plot.set_xlabel(below)
        if numbers:
            for (row, column), value in np.ndenumerate(grid):
                ink = _ink(image.cmap(image.norm(value)))
                plot.text(column, row, _digits(value), ha="center", va="center", fontsize=6.5, color=ink)
        bar = figure.colorbar(image, ax=plot, shrink=min(1.0, 12 / max(12, 0.17 * len(values))), pad=0.02, extend="max")
        bar.set_label(axis, fontsize=8)
        figure.suptitle(title, fontsize=11, fontweight="bold")
        return save(figure, folder, name)


def curves(
    panels: Mapping[str, Series],
    title: str,
    across: str,
    up: str,
    folder: Path,
    name: str,
    *,
    logarithmic: bool = False,
    means: Mapping[str, Mapping[float, float]] | None = None,
    mean_name: str = "mean",
    errors: Mapping[str, Mapping[str, Mapping[float, float]]] | None = None,
    reference: tuple[float, str] | None = None,
) -> str:
    """Draw lines over x, a panel each group; many lines are grey but for the outermost and the mean.

    Args:
        panels: by title the lines of each.
        title: of the picture.
        across, up: what the axes show, with units.
        folder, name: where the picture goes.
        logarithmic: the scale of the values.
        means: a thick black line for each panel.
        mean_name: what kind of mean it is.
        errors: standard errors by panel and line.
        reference: a value to be marked, and its name.
    """
    count = len(panels)
    columns = min(3, count)
    rows = -(-count // columns)
    chosen = {panel: _shown(lines) for panel, lines in panels.items()}
    # One panel has its names below: those of methods can be longer than it is wide.
    below = sum(len(_wrapped(line).splitlines()) for each in chosen.values() for line in each) + 1 if count == 1 else 0
    height = 0.9 + 3.1 * rows + 0.14 * below
    with _figure(max(6.4, 4.3 * columns), height, rows, columns, sharey=True) as (figure, axes):
        from matplotlib.ticker import MaxNLocator

        places = {line: at for at, line in enumerate(dict.fromkeys(line for each in chosen.values() for line in each))}
        for (panel, lines), plot in zip(panels.items(), axes.flat, strict=False):
            shown = chosen[panel]
            many = len(shown) < len(lines)
            for line, values in lines.items():
                place = places[line] if line in shown else None  # the same in all panels
                error = ((errors or {}).get(panel) or {}).get(line)
                _line(plot, line, values, place, error)
            mean = (means or {}).get(panel)
            if mean:
                _draw(plot, mean, color="black", linewidth=2.6, label=mean_name, zorder=3)
            if many:
                plot.plot([], [], color=FAINT, label=f"{len(lines) - len(shown)} others")
            if reference is not None:
                plot.axhline(reference[0], color=QUIET, linestyle=":", linewidth=1.2, label=reference[1])
            if logarithmic:
                _logarithmic(plot, "y", [value for values in lines.values() for value in values.values()])
            if all(float(x).is_integer() for values in lines.values() for x in values):
                plot.xaxis.set_major_locator(MaxNLocator(integer=True))
            plot.set_title(panel)
            plot.set_xlabel(across)
            if not below:
                plot.legend(fontsize=7, loc="best")
        if below:
            figure.legend(loc="outside lower left", fontsize=7)
        for plot in axes[:, 0]:
            plot.set_ylabel(up)
        for plot in list(axes.flat)[count:]:
            plot.set_visible(False)
        figure.suptitle(title, fontsize=11, fontweight="bold")
        return save(figure, folder, name)


def paired_bars(
    rows: Mapping[str, tuple[float, float]],
    title: str,
    axes_names: tuple[str, str],
    folder: Path,
    name: str,
    reference: float,
) -> str:
    """Draw for each language a count, and beside it a share with a line for the share of everything."""
    ordered = sorted(rows, key=lambda each: rows[each][0])
    with _figure(8.0, 1.4 + 0.17 * max(4, len(ordered)), 1, 2, sharey=True) as (figure, axes):
        left, right = axes[0]
        places = range(len(ordered))
        left.barh(places, [rows[each][0] for each in ordered], color=PALETTE[0], height=0.7)
        right.scatter([100 * rows[each][1] for each in ordered], places, color=PALETTE[1], s=18)
        right.axvline(100 * reference, color=QUIET, linestyle="--", linewidth=1.2, label="all neurons")
        left.set_yticks(places, ordered, fontsize=7)
        left.set_ylim(-0.7, len(ordered) - 0.3)
        left.set_xlabel(axes_names[0])
        right.set_xlabel(axes_names[1])
        right.legend(fontsize=8, loc="best")
        for plot in (left, right):
            plot.grid(axis="y", visible=False)
        figure.suptitle(title, fontsize=11, fontweight="bold")
        return save(figure, folder, name)


def _line(
    plot: "Axes", name: str, values: Mapping[float, float], place: int | None, error: Mapping[float, float] | None
) -> None:
    """Draw one line: with a colour and a mark by its place, or grey without a name."""
    if place is None:
        _draw(plot, values, color=FAINT, linewidth=0.8, zorder=1)
        return
    colour = PALETTE[place % len(PALETTE)]
    mark = MARKS[place % len(MARKS)] if len(values) <= LONGEST_MARKED else None
    dashes = DASHES[place // len(PALETTE) % len(DASHES)]
    _draw(
        plot,
        values,
        linestyle=dashes,
        marker=mark,
        markersize=4,
        label=_wrapped(name),
        color=colour,
        linewidth=1.5,
        zorder=2,
    )
    if error:
        xs = sorted(values)
        low, high = ([values[x] + sign * error.get(x, 0.0) for x in xs] for sign in (-1, 1))
        plot.fill_between(xs, low, high, color=colour, alpha=0.13, linewidth=0)


def _draw(plot: "Axes", values: Mapping[float, float], **style: Any) -> None:
    plot.plot(sorted(values), [values[x] for x in sorted(values)], **style)


def _logarithmic(plot: "Axes", which: str, values: Sequence[float]) -> None:
    """Set a logarithmic scale with plain numbers on it."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    finite = [value for value in values if math.isfinite(value) and value > 0]
    wide = bool(finite) and max(finite) / min(finite) > 50
    (plot.set_xscale if which == "x" else plot.set_yscale)("log")
    axis = plot.xaxis if which == "x" else plot.yaxis
    axis.set_major_locator(LogLocator(base=10, subs=(1.0,) if wide else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _wrapped(name: str) -> str:
    return fill(name, LONGEST_LINE)


def _digits(value: float) -> str:
    """Return a number of a heat map, which has room for four characters."""
    if not math.isfinite(value):
        return "" if math.isnan(value) else "∞"
    return f"{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}".replace("-", "−")


def _ink(colour: Sequence[float]) -> str:
    """Return black or white, whichever has the higher contrast on a colour (relative luminance of WCAG)."""
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3])
    return "white" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.179 else "black"


def _jitter(count: int) -> list[float]:
    """Return heights between −1 and 1 that look random and are always the same."""
    golden = (math.sqrt(5) - 1) / 2
    return [2 * ((place * golden) % 1) - 1 for place in range(count)]


def _outermost(values: Mapping[str, float]) -> list[str]:
    """Return the keys of the lowest and the highest value."""
    if len(values) < 2:
        return list(values)
    return [min(values, key=lambda key: values[key]), max(values, key=lambda key: values[key])]


def _shown(lines: Series) -> list[str]:
    """Return the lines that get a colour: all of few, of many the three that end highest and the three lowest."""
    if len(lines) <= COLOURED:
        return list(lines)
    ordered = sorted(lines, key=lambda line: lines[line][max(lines[line])], reverse=True)
    return [*ordered[:3], *ordered[-3:]]
