"""The charts of report.html as Vega-Lite specifications; the page itself fills in their rows and colours.

Colours are variables of the page's style sheet, so that light, dark and print need no other chart. Whatever a colour
says, a shape, a number or a dash says too.
"""

from typing import Any

import altair as alt


Chart = Any  # Altair says of its methods that they return a union, or nothing

ROWS = alt.NamedData(name="rows")
SERIES = [f"var(--series-{number})" for number in range(8)]
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left"]
DASHES = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [10, 4], [1, 3], [12, 3]]
GROUND, INK, QUIET = "var(--ground)", "var(--ink)", "var(--quiet)"
LEGEND = alt.Legend(orient="bottom", columns=1, title=None, labelLimit=600, symbolSize=90)


def charts() -> dict[str, dict[str, Any]]:
    """Return the specification of every chart, by the name of its place in the page."""
    made = {
        "curves": _curves(),
        "heat": _heat(),
        "paired": _intervals("difference", "difference in perplexity to the baseline, %", 0),
        "layers": _lines("block", "achieved", "block", "share of zero weights"),
        "matrices": _matrices(),
        "seen": _seen(),
        "time": _time(),
        "memory": _memory(),
        "tasks": _tasks(),
        "inside": _inside(),
    }
    return {name: chart.to_dict() | {"config": CONFIG} for name, chart in made.items()}


CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "aria": False,  # the chart's place in the page has its name, and the table all of its values
    "view": {"stroke": "transparent"},
    "axis": {
        "labelColor": INK,
        "titleColor": INK,
        "tickColor": QUIET,
        "domainColor": QUIET,
        "gridColor": "var(--line)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 260,
    },
    "legend": {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "symbolStrokeWidth": 0},
    "header": {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "labelFontWeight": "bold"},
    "range": {"category": SERIES},
}


def _scale(values: list[Any]) -> alt.Scale:
    """Return the scale of methods, which the page fills in; of one domain, colours and shapes share a legend."""
    return alt.Scale(domain=["method"], range=values)


def _color() -> alt.Color:
    return alt.Color("method:N", sort=None, scale=_scale(SERIES), legend=LEGEND)


def _shape() -> alt.Shape:
    return alt.Shape("method:N", sort=None, scale=_scale(SHAPES), legend=LEGEND)


def _dash() -> alt.StrokeDash:
    return alt.StrokeDash("method:N", sort=None, scale=_scale(DASHES), legend=None)


def _curves() -> Chart:
    base = alt.Chart(ROWS).encode(
        x=alt.X("sparsity:Q", title="sparsity", axis=alt.Axis(format="%", tickCount=6)),
        color=_color(),
    )
    y = alt.Y("ratio:Q", title="pruned ÷ dense perplexity", scale=alt.Scale(type="log", nice=False))
    bars = base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q").title(""), y2="high:Q")
    lines = base.mark_line(strokeWidth=2).encode(y=y, strokeDash=_dash())
    points = base.mark_point(size=70, filled=True, opacity=1).encode(y=y, shape=_shape(), tooltip="tip:N")
    return alt.layer(bars, lines, points).properties(width="container", height=320)


def _heat() -> Chart:
    base = alt.Chart(ROWS).encode(
        x=alt.X("method:N", sort=None, title=None, axis=alt.Axis(orient="top", labelAngle=-40, labelLimit=220)),
        y=alt.Y("name:N", title=None, sort=alt.EncodingSortField("order", op="min")),
    )
    cells = base.mark_rect(stroke=GROUND).encode(color=alt.Color("fill:N", scale=None), tooltip="tip:N")
    text = base.mark_text(fontSize=11).encode(text="text:N", color=alt.Color("ink:N", scale=None))
    header = alt.Header(labelAngle=0, labelAlign="left", labelOrient="left", title=None, labelLimit=130)
    rows = alt.Row("group:N", sort=alt.EncodingSortField("group_order", op="min"), header=header)
    layers = alt.layer(cells, text).properties(width=alt.Step(58), height=alt.Step(19))
    return layers.facet(row=rows, spacing=6).resolve_scale(y="independent")


def _intervals(field: str, title: str, reference: float) -> Chart:
    y = alt.Y("name:N", title=None, sort=alt.EncodingSortField("order", op="min"))
    base = alt.Chart(ROWS).encode(y=y)
    zero = alt.Chart(ROWS).mark_rule(color=QUIET, strokeDash=[4, 3]).encode(x=alt.datum(reference))
    rules = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title), x2="high:Q", color=_verdict())
    points = base.mark_point(size=80, filled=True, opacity=1).encode(
        x=alt.X(f"{field}:Q", title=title),
        color=_verdict(),
        shape=alt.Shape("verdict:N", scale=alt.Scale(domain=VERDICTS, range=VERDICT_SHAPES), legend=LEGEND),
        tooltip="tip:N",
    )
    return alt.layer(zero, rules, points).properties(width="container", height=alt.Step(20))


VERDICTS = ["better", "not distinguishable", "worse"]
VERDICT_SHAPES = ["triangle-left", "circle", "triangle-right"]


def _verdict() -> alt.Color:
    colours = ["var(--series-0)", QUIET, "var(--series-1)"]
    return alt.Color("verdict:N", scale=alt.Scale(domain=VERDICTS, range=colours), legend=LEGEND)


def _lines(x: str, y: str, below: str, beside: str) -> Chart:
    base = alt.Chart(ROWS).encode(
        x=alt.X(f"{x}:Q", title=below, scale=alt.Scale(nice=False), axis=alt.Axis(tickMinStep=1, format="d")),
        y=alt.Y(f"{y}:Q", title=beside, scale=alt.Scale(zero=False)),
        color=_color(),
    )
    lines = base.mark_line(strokeWidth=2).encode(strokeDash=_dash())
    points = base.mark_point(size=45, filled=True, opacity=1).encode(shape=_shape(), tooltip="tip:N")
    return alt.layer(lines, points).properties(width="container", height=260)


def _matrices() -> Chart:
    base = alt.Chart(ROWS).encode(
        x=alt.X("block:O", title="block", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("kind:N", sort=None, title=None),
    )
    cells = base.mark_rect(stroke=GROUND).encode(color=alt.Color("fill:N", scale=None), tooltip="tip:N")
    text = base.mark_text(fontSize=10).encode(text="text:N", color=alt.Color("ink:N", scale=None))
    return alt.layer(cells, text).properties(width=alt.Step(30), height=alt.Step(22))


def _seen() -> Chart:
    y = alt.Y("method:N", sort=None, title=None)
    x = alt.X("ratio:Q", title="pruned ÷ dense perplexity", scale=alt.Scale(zero=False))
    kinds = ["seen in calibration", "unseen"]
    rules = alt.Chart(ROWS).mark_line(color=QUIET).encode(y=y, x=x, detail="method:N")
    points = (
        alt.Chart(ROWS)
        .mark_point(size=90, filled=True, opacity=1)
        .encode(
            y=y,
            x=x,
            color=alt.Color("which:N", scale=alt.Scale(domain=kinds, range=SERIES[:2]), legend=LEGEND),
            shape=alt.Shape("which:N", scale=alt.Scale(domain=kinds, range=SHAPES[:2]), legend=LEGEND),
            tooltip="tip:N",
        )
    )
    return alt.layer(rules, points).properties(width="container", height=alt.Step(26))


def _time() -> Chart:
    return (
        alt.Chart(ROWS)
        .mark_bar(stroke=GROUND, strokeWidth=1.5)
        .encode(
            y=alt.Y("method:N", sort=None, title=None),
            x=alt.X("seconds:Q", title="seconds, mean over runs"),
            color=alt.Color("stage:N", sort=None, scale=alt.Scale(range=SERIES), legend=LEGEND),
            order=alt.Order("stage_order:Q"),
            tooltip="tip:N",
        )
        .properties(width="container", height=alt.Step(24))
    )


def _memory() -> Chart:
    return (
        alt.Chart(ROWS)
        .mark_bar(color=SERIES[0])
        .encode(
            y=alt.Y("method:N", sort=None, title=None),
            x=alt.X("gibibytes:Q", title="peak memory, GiB"),
            tooltip="tip:N",
        )
        .properties(width="container", height=alt.Step(24))
    )


def _tasks() -> Chart:
    y = alt.Y("place:N", title=None, sort=None)
    base = alt.Chart(ROWS).encode(y=y)
    title = "score, pruned minus dense"
    zero = alt.Chart(ROWS).mark_rule(color=QUIET, strokeDash=[4, 3]).encode(x=alt.datum(0))
    rules = base.mark_rule(strokeWidth=1.5).encode(x=alt.X("low:Q", title=title), x2="high:Q", color=_color())
    points = base.mark_point(size=60, filled=True, opacity=1).encode(
        x=alt.X("difference:Q", title=title), color=_color(), shape=_shape(), tooltip="tip:N"
    )
    offset = alt.YOffset("method:N", sort=None)
    return alt.layer(zero, rules.encode(yOffset=offset), points.encode(yOffset=offset)).properties(
        width="container", height=alt.Step(12)
    )


def _inside() -> Chart:
    base = alt.Chart(ROWS).encode(
        x=alt.X("block:Q", title="block", scale=alt.Scale(nice=False), axis=alt.Axis(tickMinStep=1, format="d")),
        y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
        color=_color(),
    )
    lines = base.mark_line(strokeWidth=2).encode(strokeDash=_dash())
    points = base.mark_point(size=40, filled=True, opacity=1).encode(shape=_shape(), tooltip="tip:N")
    layers = alt.layer(lines, points).properties(width=290, height=180)
    return layers.facet(alt.Facet("measure:N", sort=None, title=None), columns=2).resolve_scale(y="independent")
