"""What pruning one layer alone costs, as heat maps: for paper, and for the page."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from math import pow
from typing import TYPE_CHECKING, Any

from lightning_sparse.drawing.layer_sensitivity import (
    BAR,
    DARKEST,
    MOST_NUMBERS,
    POWER,
    SHADES,
    TICKS,
    bar_of_shades,
    cell,
    inches_of,
    plot_layer_sensitivity,
    short,
)
from lightning_sparse.drawing.style import WIDTH, caption
from lightning_sparse.report.figure_contents import LAYERS, X_NAMES, Contents, Panel
from lightning_sparse.report.hover import hover
from lightning_sparse.results.layer_sensitivity import TOGETHER, changes_by_layer
from lightning_sparse.results.records import Measured, Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 2  # heat maps side by side
PIXELS = 20  # of a layer on the page
HIGHEST = 2000  # pixels


def printed(contents: Contents) -> Figure:
    """Draw the heat maps with matplotlib, with one bar of shades and a caption."""
    from matplotlib.figure import Figure

    found = [_means(panel) for panel in contents.panels]
    columns = min(len(found), COLUMNS)
    rows = -(-len(found) // columns)
    height = max(inches_of(len(changes_by_layer(means))) for means in found)
    figure = Figure(figsize=(WIDTH, rows * (height + 0.2) + 0.8), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for axes, panel, means in zip(grid, contents.panels, found, strict=False):
        plot_layer_sensitivity(means, axes)
        axes.set_title(panel.title)
    for axes in grid[len(found) :]:
        axes.set_visible(False)
    bar_of_shades(grid[: len(found)])
    caption(figure, contents.caption)
    return figure


def on_page(contents: Contents) -> dict[str, Any]:
    """Describe the heat maps for the page, as :func:`~lightning_sparse.report.plotly_figures.interactive` does."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    colors = [[i / 8, to_hex(colormaps[SHADES](i / 8))] for i in range(9)]  # those of the printed figure
    panels = [{"data": [_trace(panel, colors)], "layout": _layout(panel)} for panel in contents.panels]
    rows = [{"title": "", "panels": panels}]
    return {"legend": [], "rows": rows, "columns": min(len(panels), COLUMNS), "many": False, "spreads": False}


def _means(panel: Panel) -> Measured:
    """The means over seeds, and their intervals, as the rows of one network."""
    lines = panel.lines.to_dict("records")
    return Measured(
        [Record(of["metric"], of["mean"], of["n"], of["low"], of["high"], condition=of["condition"]) for of in lines]
    )


def _trace(panel: Panel, colors: list[Any]) -> dict[str, Any]:
    rows = changes_by_layer(_means(panel))
    lines = {line["condition"]: line for line in panel.lines.to_dict("records")}
    sparsities = sorted({sparsity for row in rows.values() for sparsity in row})

    def table(of: Callable[[Record], Any], blank: Any = None) -> list[list[Any]]:
        return [[of(row[x]) if x in row else blank for x in sparsities] for row in rows.values()]

    def says(record: Record) -> str:
        layer, _, sparsity = record.condition.rpartition(" ")
        return f"<b>{escape(layer)}</b> pruned to {sparsity}<br>{hover(lines[record.condition])}"

    return {
        "type": "heatmap",
        "x": [f"{100 * sparsity:.6g}" for sparsity in sparsities],
        "y": [_name(layer) for layer in rows],
        "z": table(lambda record: _shade(-100 * record.value)),
        "text": table(_text, "") if len(rows) <= MOST_NUMBERS else [],
        "texttemplate": "%{text}",
        "hovertext": table(says, ""),
        "hoverinfo": "text",
        "hoverongaps": False,
        "xgap": 1,
        "ygap": 1,
        "zmin": 0,
        "zmax": 1,
        "colorscale": colors,
        "colorbar": {
            "title": {"text": BAR, "side": "right"},
            "tickvals": [_shade(points) for points in TICKS],
            "ticktext": [str(points) for points in TICKS],
            "thickness": 12,
            "outlinewidth": 0,
        },
        "meta": {"group": "", "role": "mean"},  # of no entry in a legend, so that hiding dense elsewhere leaves it
    }


def _shade(points: float) -> float:
    """Where a loss lies on the scale of colours, as matplotlib's PowerNorm has it."""
    return pow(min(max(points, 0.0), DARKEST) / DARKEST, POWER)


def _text(record: Record) -> str:
    text, bold = cell(record)
    return f"<b>{text}</b>" if bold else text


def _name(layer: str) -> str:
    return f"<b>{TOGETHER}</b>" if layer == TOGETHER else escape(short(layer))


def _layout(panel: Panel) -> dict[str, Any]:
    layers = list(changes_by_layer(_means(panel)))
    longest = max(len(short(layer)) for layer in layers)
    title = {
        "text": escape(panel.title),
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "yanchor": "top",
        "font": {"size": 13},
    }
    return {
        "title": title | {"y": 1, "pad": {"t": 10}},
        "xaxis": {"title": {"text": X_NAMES[LAYERS], "standoff": 6}, "type": "category", "showgrid": False},
        "yaxis": {"type": "category", "autorange": "reversed", "showgrid": False},
        "height": max(300, min(92 + PIXELS * len(layers), HIGHEST)),
        "margin": {"l": 24 + 7 * longest, "r": 14, "t": 34, "b": 58},
        "font": {"size": 11},
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "font": {"size": 12}},
    }
