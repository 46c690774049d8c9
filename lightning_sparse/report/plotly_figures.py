"""The interactive figures: what :mod:`~lightning_sparse.report.figure_contents` describes, as input of plotly.js."""

from __future__ import annotations

from functools import partial
from html import escape
from itertools import groupby
from math import ceil, floor, isnan, log10
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from lightning_sparse.drawing.style import spaced
from lightning_sparse.report.figure_contents import (
    COLUMN,
    DENSITY,
    EPS,
    LAYERS,
    NONE,
    TIME,
    Contents,
    Panel,
    by_level,
    clip,
    x_name,
)
from lightning_sparse.report.hover import hover
from lightning_sparse.report.layer_heat_map import on_page
from lightning_sparse.report.looks import DENSE, dense_dashes, densities, density_names, level_colors, looks
from lightning_sparse.report.words import eps_text
from lightning_sparse.results.quantities import Limits
from lightning_sparse.tables.method_names import is_dense, level_words

if TYPE_CHECKING:
    from lightning_sparse.tables.collect import Sweep

Trace = dict[str, Any]
Look = dict[str, Any]
INK = "#ececf0"  # dense, on dark paper
MANY = 6  # with more methods, intervals and single seeds are shown only on demand
SYMBOLS = {
    "o": ("circle", "●"),
    "s": ("square", "■"),
    "^": ("triangle-up", "▲"),
    "D": ("diamond", "◆"),
    "v": ("triangle-down", "▼"),
    "P": ("cross", "✚"),
    "x": ("x-thin-open", "✕"),
    "+": ("cross-thin-open", "+"),
    "*": ("star", "★"),
}
DASHES = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot", "": "solid"}


def interactive(contents: Contents, sweep: Sweep) -> dict[str, Any]:
    """Describe a figure for the page.

    Returns:
        ``legend``: per entry ``name``, ``group``, ``mark``, and its colour on ``light`` and on ``dark`` paper; ``rows``, each
        with a ``title`` and ``panels`` of ``data`` and ``layout`` for ``Plotly.newPlot``, in the colours for light paper;
        ``columns``, panels side by side if there is room; ``spreads``: whether there are intervals or single seeds; and
        ``many``: whether there are too many lines to show these at first. A trace's ``meta`` holds its ``group``, colours
        and ``role``: ``"mean"``, ``"spread"`` or ``"front"``; its ``hollow`` points failed a check of trust.
    """
    if contents.x == LAYERS:
        return on_page(contents)
    ways = _ways(contents, sweep)
    draw = {DENSITY: _against_density, EPS: _security_curve}.get(contents.x, partial(_pareto, contents.x))
    rows: list[dict[str, Any]] = []
    for title, panels in contents.rows.items():
        drawn = []
        for column, panel in enumerate(panels):
            layout = _layout(contents, panel, sweep)
            layout["yaxis"] |= _y_range(contents, column, panel)
            traces = draw(panel, sweep, ways) if len(panel.lines) else []
            traces.sort(key=lambda trace: trace["meta"]["role"] != "spread")  # lines lie over the bands of others
            drawn.append({"data": traces, "layout": layout})
        rows.append({"title": title, "panels": drawn})
    metas = [trace["meta"] for row in rows for panel in row["panels"] for trace in panel["data"]]
    used = {meta["group"] for meta in metas}
    legend = [
        {"name": name, "group": look["group"], "mark": SYMBOLS[look["marker"]][1], **_colors(look)}
        for name, look in ways.items()
        if look["group"] in used
    ]
    spreads = any(meta["role"] == "spread" for meta in metas)
    most = max(len(panels) for panels in contents.rows.values())
    columns = most if most <= 4 else 3
    return {"legend": legend, "rows": rows, "columns": columns, "many": len(legend) > MANY, "spreads": spreads}


def _ways(contents: Contents, sweep: Sweep) -> dict[str, Look]:
    """By entry of the legend: colours, marker, dash, and the group that a click hides."""
    methods = sorted(set(contents.shown["method"]))
    ways: dict[str, Look] = {
        name: {"color": DENSE, "dark": INK, "marker": "o", "linestyle": dash}
        for name, dash in dense_dashes(methods).items()
    }
    if contents.x == EPS:
        levels = sorted(set(contents.shown["sparsity_asked"]) - {0.0})
        light, dark = level_colors(levels), level_colors(levels, dark=True)
        ways |= {
            level_words(level, sweep.by_bits): {
                "color": light[level],
                "dark": dark[level],
                "marker": "o",
                "linestyle": "-",
            }
            for level in levels
        }
    else:
        ways |= {name: dict(look) for name, look in looks(sweep.jobs["method"]).items() if name in methods}
    for name, look in ways.items():
        look["group"] = name
    return ways


def _against_density(panel: Panel, sweep: Sweep, ways: dict[str, Look]) -> list[Trace]:
    levels, left, right = densities(sweep.sparse_levels)
    traces = []
    for method, lines in panel.lines.groupby("method"):
        look = ways[str(method)]
        if is_dense(str(method)):
            line = lines.to_dict("records")[0]
            across = [left, *levels, right]
            traces += _spread([left, right], [line, line], panel.limits, look, singles=False)
            traces.append(_line([line] * len(across), across, look, mode="lines"))
            continue
        points = lines[lines["sparsity_asked"] < 1].sort_values("sparsity_asked").to_dict("records")
        x = [point["density"] for point in points]
        traces += _spread(x, points, panel.limits, look)
        traces.append(_line(points, x, look))
    return traces


def _security_curve(panel: Panel, sweep: Sweep, ways: dict[str, Look]) -> list[Trace]:
    traces = []
    for method, level, lines in by_level(panel.lines):
        look = ways[method if is_dense(method) else level_words(level, sweep.by_bits)]
        points = lines.sort_values("eps").to_dict("records")
        x = [point["eps"] for point in points]
        traces += _spread(x, points, panel.limits, look, singles=False)
        traces.append(_line(points, x, look))
    return traces


def _pareto(x: str, panel: Panel, sweep: Sweep, ways: dict[str, Look]) -> list[Trace]:
    traces = []
    front = panel.lines[panel.lines["front"]].sort_values(x)
    if len(front):
        look: Look = {"color": "#999999", "group": "front", "linestyle": "-", "marker": "o"}
        line = _line(front.to_dict("records"), list(front[x]), look, mode="lines", role="front")
        traces.append(line | {"line": line["line"] | {"shape": "hv", "width": 1}, "hoverinfo": "skip"})
    for method, lines in panel.lines.groupby("method"):
        points = lines.to_dict("records")
        traces.append(_line(points, list(lines[x]), ways[str(method)], mode="markers"))
    return traces


def _line(
    points: list[dict[Any, Any]], x: list[float], look: Look, mode: str = "lines+markers", role: str = "mean"
) -> Trace:
    """The means, with a text for each point."""
    hollow = [bool(point["distrusted"]) for point in points]
    color = look["color"]
    return {
        "type": "scatter",
        "mode": mode,
        "name": escape(look["group"]),
        "x": x,
        "y": [None if isnan(point["mean"]) else point["mean"] for point in points],
        "text": [hover(point) for point in points],
        "hoverinfo": "text",
        "line": {"color": color, "width": 2, "dash": DASHES[look["linestyle"]]},
        "marker": {
            "symbol": ["circle" if failed else SYMBOLS[look["marker"]][0] for failed in hollow],
            "size": [10 if failed else 8 for failed in hollow],
            "color": ["#ffffff" if failed else color for failed in hollow],
            "line": {"color": color, "width": [2 if failed or look["marker"] in "x+" else 0 for failed in hollow]},
        },
        "meta": {"group": look["group"], "role": role, "hollow": hollow, **_colors(look)},
    }


def _spread(
    xs: list[float], points: list[dict[Any, Any]], limits: Limits, look: Look, *, singles: bool = True
) -> list[Trace]:
    """Bands of the intervals, clipped to the limits and broken where there is none, and dots of single seeds."""
    meta = {"group": look["group"], "role": "spread", **_colors(look)}
    same = {"type": "scatter", "hoverinfo": "skip", "meta": meta, "name": escape(look["group"])}
    traces: list[Trace] = []
    for undefined, run in groupby(zip(xs, points, strict=True), key=lambda place: isnan(place[1]["low"])):
        band = list(run)
        if undefined or len(band) < 2:
            continue
        upper = [(x, clip(point["high"], limits)) for x, point in band]
        around = upper + [(x, clip(point["low"], limits)) for x, point in reversed(band)]
        fill = {"line": {"width": 0, "color": look["color"]}, "fill": "toself", "fillcolor": faint(look["color"])}
        traces.append(same | {"x": [x for x, _ in around], "y": [y for _, y in around], "mode": "lines"} | fill)
    dots = [(x, value) for x, point in zip(xs, points, strict=True) if point["seeds"] > 1 for value in point["values"]]
    if singles and dots:
        marker = {"color": look["color"], "size": 4, "opacity": 0.45}
        single = {"x": [x for x, _ in dots], "y": [value for _, value in dots]}
        traces.append(same | single | {"mode": "markers", "marker": marker})
    return traces


def _layout(contents: Contents, panel: Panel, sweep: Sweep) -> dict[str, Any]:
    x_axis: dict[str, Any] = {"title": {"text": x_name(contents, sweep), "standoff": 6}, "zeroline": False}
    if contents.x == DENSITY:
        levels, left, right = densities(sweep.sparse_levels)
        names = density_names(levels, 0.14 * log10(left / right), by_bits=sweep.by_bits)
        ticks = [name.replace("\n", "<br>") for name in names]
        x_axis |= {"type": "log", "range": [log10(left), log10(right)], "tickvals": levels, "ticktext": ticks}
    elif contents.x == EPS:
        sizes = sorted(set(contents.shown["eps"]))
        written = spaced(sizes, room=0.16 * sizes[-1])
        names = ["0" if eps == 0 else eps_text(eps) for eps in sizes]
        texts = [name if i in written else "" for i, name in enumerate(names)]
        x_axis |= {"tickvals": sizes, "ticktext": texts, "autotickangles": [0, 45]}
    else:
        x_axis |= {"rangemode": "tozero"} if contents.x == TIME else {"type": "log"}
    name = "<br>".join(wrap(contents.y, 30))
    y_axis: dict[str, Any] = {"title": {"text": name, "standoff": 4}, "zeroline": contents.unit == "points"}
    if contents.unit == "%":
        y_axis["tickformat"] = ".0%"
    title = {"text": escape(panel.title), "x": 0, "xref": "paper", "xanchor": "left", "y": 0.97, "font": {"size": 13}}
    return {
        "title": title,
        "xaxis": x_axis,
        "yaxis": y_axis,
        "height": 300,
        "margin": {"l": 74 if "<br>" in name else 62, "r": 14, "t": 34, "b": 58},
        "font": {"size": 11},
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "font": {"size": 12}},
    }


def _y_range(contents: Contents, column: int, panel: Panel) -> dict[str, Any]:
    """A common y axis for panels that are compared; plotly finds the ends of the others."""
    if contents.y_range:
        return {"range": list(contents.y_range)}
    if contents.same_y == NONE:
        return {}
    rows = contents.rows.values()
    together = [row[column] for row in rows] if contents.same_y == COLUMN else contents.panels
    ends = [
        clip(value, shown.limits)
        for shown in together
        for name in ("mean", "low", "high")
        for value in shown.lines[name].dropna()
    ]
    if not ends:
        return {}
    room = 0.05 * (max(ends) - min(ends)) or 0.05
    low, high = min(ends) - room, max(ends) + room
    if contents.unit != "points":
        return {"range": [low, high]}
    step = next((step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if high - low < 8 * step), 0.5)
    ticks = [i * step for i in range(ceil(low / step), floor(high / step) + 1)]
    names = [f"{100 * tick:+.0f}".replace("-", "\N{MINUS SIGN}") if tick else "0" for tick in ticks]
    return {"range": [low, high], "tickvals": ticks, "ticktext": names}


def _colors(look: Look) -> dict[str, str]:
    return {"light": look["color"], "dark": look.get("dark", look["color"])}


def faint(color: str) -> str:
    """A transparent version of a colour, to fill a band.

    Example:
        >>> faint("#0072B2")
        'rgba(0,114,178,0.14)'
    """
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.14)"
