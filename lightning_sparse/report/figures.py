"""The figures of a sweep: accuracy and robustness against density, security curves, saliency against density."""

from __future__ import annotations

from math import inf, isnan
from typing import TYPE_CHECKING, Any

from lightning_sparse.report.captions import attacks, marks, subject
from lightning_sparse.report.style import (
    DENSE,
    WIDTH,
    caption,
    density_axis,
    inches,
    legend,
    looks,
    lowest,
    panels,
    spaced,
)
from lightning_sparse.report.table import over_seeds
from lightning_sparse.report.verdicts import is_worst
from lightning_sparse.report.words import NAMES, eps_text, name_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lightning_sparse.report.collect import Sweep

SALIENCY = {
    "gini": (0.0, 1.0),
    "insertion_deletion_gap": (-1.0, 1.0),
    "max_sensitivity": (0.0, inf),
    "dense_agreement": (-1.0, 1.0),
}
DENSITY = "density (below it: sparsity)"
BAND = 0.16  # opacity of an interval
SHARE = (0.0, 1.0)


def robustness(sweep: Sweep) -> Figure | None:
    """Clean accuracy and worst-case robust accuracy at each eps against density; None if there is nothing to draw."""
    averages = over_seeds(sweep.frame)
    kept = averages[(averages["metric"] == "clean_accuracy") | is_worst(averages)]
    if kept.empty:
        return None
    charts = kept.sort_values(["attack", "eps"]).drop_duplicates("chart")
    figure, grid = panels(len(charts))
    for axes, chart in zip(grid, charts.to_dict("records"), strict=True):
        against_density(axes, sweep, kept[kept["chart"] == chart["chart"]], SHARE)
        axes.set_title(name_of(chart["metric"], chart["attack"], chart["eps"]))
        # From 0 where attacks bring accuracy down; clean accuracy alone would be a line at the top.
        axes.set_ylim(-0.02 if kept["attack"].any() else max(-0.02, kept["mean"].min() - 0.05), 1.02)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    for axes in lowest(grid):
        axes.set_xlabel(DENSITY)
    figure.supylabel("test images still classified correctly", fontsize=8)
    legend(figure, grid)
    caption(figure, f"{subject(sweep, kept)} {attacks(sweep.frame)} {marks(kept)}")
    return figure


def security_curves(sweep: Sweep) -> Figure | None:
    """Robust accuracy against eps: one panel per method, one line per sparsity, dense in black."""
    averages = over_seeds(sweep.frame)
    kept = averages[(averages["metric"] == "clean_accuracy") | is_worst(averages)].fillna({"eps": 0.0})
    methods = list(looks(kept["method"])) or ["dense"]
    if not (kept["attack"] == "worst").any():
        return None
    from matplotlib import colormaps

    levels = sorted(set(kept["sparsity_asked"]) - {0.0})
    # The pale end of the map is left out, and colours are by rank: 0.95 and 0.98 must be told apart.
    shade = {level: colormaps["viridis_r"](0.12 + 0.8 * i / max(1, len(levels) - 1)) for i, level in enumerate(levels)}
    figure, grid = panels(len(methods), height=2.6)
    for axes, method in zip(grid, methods, strict=True):
        dense = kept[kept["method"] == "dense"].sort_values("eps")
        if len(dense):
            _line(axes, dense, "eps", SHARE, color=DENSE, linestyle="--", marker="o", label="dense")
        hollow(axes, dense, "eps", DENSE)
        lines = kept[(kept["method"] == method) & (method != "dense")].sort_values("eps")
        for level, line in lines.groupby("sparsity_asked"):
            color = shade.get(level, DENSE)
            axes.plot(line["eps"], line["mean"], color=color, marker="o", label=f"sparsity {level:g}")
            hollow(axes, line, "eps", color)
        axes.set_title(method)
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        sizes = sorted(set(kept["eps"]))
        written = spaced(sizes, room=0.6 / inches(axes) * sizes[-1])
        names = ["0\n(clean)" if eps == 0 else eps_text(eps) for eps in sizes]
        axes.set_xticks(sizes, labels=[name if i in written else "" for i, name in enumerate(names)])
    for axes in lowest(grid):
        axes.set_xlabel("size of the perturbation, eps")
    figure.supylabel("robust accuracy", fontsize=8)
    legend(figure, grid, right=True)
    caption(figure, f"{subject(sweep, kept)} {attacks(sweep.frame)} {marks(kept, curves=True)}")
    return figure


def saliency(sweep: Sweep) -> Figure | None:
    """Gini index, insertion - deletion gap and agreement with dense, one row per attribution, against density."""
    averages = over_seeds(sweep.frame)
    kept = averages[averages["metric"].isin(SALIENCY) & (averages["attribution"] != "input")]
    if kept.empty:
        return None
    same = kept["condition"] == "same images"
    # Over the same images where that was computed; agreement is of the same images anyway.
    kept = kept[same | ~kept["metric"].isin(kept.loc[same, "metric"])]
    from matplotlib.figure import Figure

    metrics = [metric for metric in SALIENCY if (kept["metric"] == metric).any()]
    attributions = sorted(set(kept["attribution"]))
    figure = Figure(figsize=(WIDTH, 2.1 * len(attributions) + 1.1), layout="constrained")
    grid = figure.subplots(len(attributions), len(metrics), sharex=True, sharey="col", squeeze=False)
    for i, attribution in enumerate(attributions):
        for j, metric in enumerate(metrics):
            axes = grid[i, j]
            chosen = kept[(kept["attribution"] == attribution) & (kept["metric"] == metric)]
            if chosen.empty:
                axes.set_visible(False)
                continue
            against_density(axes, sweep, chosen, SALIENCY[metric])
            axes.set_title(NAMES[metric] if i == 0 else "")
            axes.set_xlabel(DENSITY if i == len(attributions) - 1 else "")
        grid[i, 0].set_ylabel(attribution.replace("_", " "), fontsize=8.5)
    legend(figure, grid.flatten().tolist())
    caption(
        figure,
        f"{subject(sweep, kept)} Gini index: 0 spread out, 1 concentrated. Insertion - deletion gap: 0 is a random "
        f"order of pixels. Max-sensitivity: how far a map moves under small noise, lower is better. Agreement: rank "
        f"correlation with the map of the dense network (the dense line: between dense seeds). {marks(kept)}",
    )
    return figure


def against_density(axes: Axes, sweep: Sweep, lines: pd.DataFrame, limits: tuple[float, float]) -> None:
    """Draw one line per method over the sweep's densities, and dense as a level across the panel."""
    sparse = lines[(lines["method"] != "dense") & (lines["sparsity_asked"] < 1)]
    for method, look in looks(sweep.jobs["method"]).items():
        line = sparse[sparse["method"] == method].sort_values("sparsity_asked")
        if line.empty:
            continue
        line = line.assign(density=1 - line["sparsity_asked"])
        _line(axes, line, "density", limits, label=method, **look)
        hollow(axes, line, "density", look["color"])
        for x, values in zip(line["density"], line["values"], strict=True):
            if len(values) > 1:
                axes.plot([x] * len(values), values, ".", color=look["color"], alpha=0.45, markersize=3.5, zorder=1.5)
    for level in lines[lines["method"] == "dense"].to_dict("records"):
        name = "dense (failed a check)" if level["distrusted"] else "dense"
        axes.axhline(level["mean"], color=DENSE, linestyle="--", linewidth=1.1, label=name, zorder=1.8)
        if level["seeds"] > 1:
            low, high = _clip(level["low"], limits), _clip(level["high"], limits)
            axes.axhspan(low, high, color=DENSE, alpha=0.1, linewidth=0)
    density_axis(axes, sweep.jobs.loc[sweep.jobs["method"] != "dense", "sparsity_asked"])


def hollow(axes: Axes, line: pd.DataFrame, x: str, color: Any) -> None:
    """Draw over the points whose trust verdict failed: white inside, so that nobody takes them for evidence."""
    failed = line[line["distrusted"] != ""]
    if len(failed):
        look: dict[str, Any] = {"marker": "o", "markersize": 6.5, "markerfacecolor": "white", "markeredgewidth": 1.2}
        axes.plot(failed[x], failed["mean"], linestyle="", color=color, zorder=4, **look)


def _line(
    axes: Axes,
    line: pd.DataFrame,
    x: str,
    limits: tuple[float, float],
    *,
    color: Any,
    marker: str,
    label: str,
    linestyle: str = "-",
) -> None:
    axes.plot(line[x], line["mean"], color=color, marker=marker, label=label, linestyle=linestyle)
    low = [_clip(value, limits) for value in line["low"]]
    high = [_clip(value, limits) for value in line["high"]]
    axes.fill_between(line[x], low, high, color=color, alpha=BAND, linewidth=0)


def _clip(value: float, limits: tuple[float, float]) -> float:
    return value if isnan(value) else min(max(value, limits[0]), limits[1])
