"""The printed figures: what :mod:`~lightning_sparse.report.figure_contents` describes, drawn with matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_sparse.drawing.style import WIDTH, caption, inches, legend, lowest, panels, spaced
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
from lightning_sparse.report.layer_heat_map import printed
from lightning_sparse.report.looks import DENSE, dense_dashes, density_axis, level_colors, looks
from lightning_sparse.report.words import eps_text
from lightning_sparse.tables.method_names import is_dense, level_words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lightning_sparse.tables.collect import Sweep

BAND = 0.16  # opacity of an interval


def draw(contents: Contents, sweep: Sweep) -> Figure:
    """Draw a figure for paper: small multiples with a common legend and a caption."""
    if contents.x == LAYERS:
        return printed(contents)
    figure, grid = (_matrix if contents.same_y == COLUMN else _multiples)(contents, x_name(contents, sweep))
    for axes, panel in zip(grid, contents.panels, strict=True):
        if panel.lines.empty:
            axes.set_visible(False)
            continue
        if contents.x == DENSITY:
            _against_density(axes, sweep, panel)
        elif contents.x == EPS:
            _security_curve(axes, panel, contents.shown, by_bits=sweep.by_bits)
        else:
            _front(axes, sweep, panel, contents.x)
        if contents.y_range:
            axes.set_ylim(*contents.y_range)
        if contents.unit == "points":
            axes.axhline(0.0, color="black", linewidth=0.8)
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:+.0f}")
        elif contents.unit == "%":
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    legend(figure, grid, right=contents.x == EPS)
    caption(figure, contents.caption)
    return figure


def _multiples(contents: Contents, x: str) -> tuple[Figure, list[Axes]]:
    height = 2.25 if contents.x == DENSITY else 2.6 if contents.x == EPS else 2.5
    figure, grid = panels(len(contents.panels), height, same_y=contents.same_y != NONE)
    for axes, panel in zip(grid, contents.panels, strict=True):
        axes.set_title(panel.title)
    for axes in lowest(grid):
        axes.set_xlabel(x)
    figure.supylabel(contents.y, fontsize=8)
    return figure, grid


def _matrix(contents: Contents, x: str) -> tuple[Figure, list[Axes]]:
    """Rows of panels, with a title above each column."""
    from matplotlib.figure import Figure

    rows = list(contents.rows.items())
    figure = Figure(figsize=(WIDTH, 2.1 * len(rows) + 1.1), layout="constrained")
    grid = figure.subplots(len(rows), len(rows[0][1]), sharex=True, sharey="col", squeeze=False)
    for i, (name, row) in enumerate(rows):
        for axes, panel in zip(grid[i], row, strict=True):
            axes.set_title(panel.title if i == 0 else "")
            axes.set_xlabel(x if i == len(rows) - 1 else "")
        grid[i, 0].set_ylabel(name, fontsize=8.5)
    return figure, grid.flatten().tolist()


def _against_density(axes: Axes, sweep: Sweep, panel: Panel) -> None:
    """Draw one line per method over the sweep's densities, and dense as a level across the panel."""
    lines = panel.lines
    for method, look in looks(sweep.jobs["method"]).items():
        line = lines[(lines["method"] == method) & (lines["sparsity_asked"] < 1)].sort_values("sparsity_asked")
        if line.empty:
            continue
        _line(axes, line, "density", panel, label=method, **look)
        for x, values in zip(line["density"], line["values"], strict=True):
            if len(values) > 1:
                axes.plot([x] * len(values), values, ".", color=look["color"], alpha=0.45, markersize=3.5, zorder=1.5)
    dashes = dense_dashes(sweep.jobs["method"])
    for level in lines[lines["method"].map(is_dense).astype(bool)].to_dict("records"):
        name = f"{level['method']} (failed a check)" if level["distrusted"] else level["method"]
        look = {"color": DENSE, "linestyle": dashes[level["method"]], "linewidth": 1.1}
        axes.axhline(level["mean"], label=name, zorder=1.8, **look)
        if level["seeds"] > 1:
            low, high = clip(level["low"], panel.limits), clip(level["high"], panel.limits)
            axes.axhspan(low, high, color=DENSE, alpha=0.1, linewidth=0)
    density_axis(axes, sweep.sparse_levels, by_bits=sweep.by_bits)


def _security_curve(axes: Axes, panel: Panel, shown: pd.DataFrame, *, by_bits: bool) -> None:
    """Draw the curves of one method, a line per sparsity, and that of dense."""
    dashes = dense_dashes(shown["method"])
    shade = level_colors(set(shown["sparsity_asked"]) - {0.0})
    for method, level, line in by_level(panel.lines):
        if is_dense(method):
            _line(axes, line, "eps", panel, color=DENSE, linestyle=dashes[method], marker="o", label=method)
            continue
        color = shade.get(level, DENSE)
        axes.plot(line["eps"], line["mean"], color=color, marker="o", label=level_words(level, by_bits))
        _hollow(axes, line, "eps", color)
    sizes = sorted(set(shown["eps"]))
    written = spaced(sizes, room=0.6 / inches(axes) * sizes[-1])
    names = ["0\n(clean)" if eps == 0 else eps_text(eps) for eps in sizes]
    axes.set_xticks(sizes, labels=[name if i in written else "" for i, name in enumerate(names)])


def _front(axes: Axes, sweep: Sweep, panel: Panel, x: str) -> None:
    """Draw a point per method and level, and the Pareto front."""
    ways = looks(sweep.jobs["method"])
    for method, points in panel.lines.groupby("method"):
        look = ways.get(str(method), {"color": DENSE, "marker": "*"})
        axes.plot(points[x], points["mean"], label=method, **{**look, "linestyle": ""})
    _hollow(axes, panel.lines, x, "#777777")
    front = panel.lines[panel.lines["front"]].sort_values(x)
    axes.step(front[x], front["mean"], where="post", color="#999999", linewidth=0.9, zorder=1)
    if x == TIME:
        axes.axvline(1.0, color=DENSE, linewidth=0.8, linestyle=":", zorder=1)
        axes.set_xlim(0.0, 1.08 * max(1.0, panel.lines[x].max()))
        return
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "25" else "")


def _hollow(axes: Axes, line: pd.DataFrame, x: str, color: Any) -> None:
    """Draw white dots over the points that failed a check of trust, so that nobody takes them for evidence."""
    failed = line[line["distrusted"].astype(bool)]
    if len(failed):
        look: dict[str, Any] = {"marker": "o", "markersize": 6.5, "markerfacecolor": "white", "markeredgewidth": 1.2}
        axes.plot(failed[x], failed["mean"], linestyle="", color=color, zorder=4, **look)


def _line(axes: Axes, line: pd.DataFrame, x: str, panel: Panel, *, color: str, **look: Any) -> None:
    """Draw the means, the band of their intervals, and the hollow points."""
    axes.plot(line[x], line["mean"], color=color, **look)
    low, high = line["low"].clip(*panel.limits), line["high"].clip(*panel.limits)
    axes.fill_between(line[x], low, high, color=color, alpha=BAND, linewidth=0)
    _hollow(axes, line, x, color)
