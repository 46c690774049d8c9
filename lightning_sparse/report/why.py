"""What may explain a change of robustness, and what it costs: figures of the measurements beside accuracy."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from lightning_sparse.report.captions import marks, subject
from lightning_sparse.report.figures import DENSITY, against_density, hollow
from lightning_sparse.report.style import DENSE, caption, legend, looks, lowest, panels
from lightning_sparse.report.table import over_seeds
from lightning_sparse.report.words import eps_text, name_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lightning_sparse.report.collect import Sweep

SHARE, POSITIVE = (0.0, 1.0), (0.0, inf)
STABILITY = {
    "corruption_mean_accuracy": SHARE,
    "shift_consistency": SHARE,
    "curvature_jacobian_norm_calibrated": POSITIVE,
    "curvature_hessian_eigenvalue": POSITIVE,
}


def stability(sweep: Sweep) -> Figure | None:
    """Corruptions, shifts and curvature against density; None if none was measured."""
    averages = over_seeds(sweep.frame)
    kept = averages[averages["metric"].isin(STABILITY)]
    if kept.empty:
        return None
    metrics = [metric for metric in STABILITY if (kept["metric"] == metric).any()]
    figure, grid = panels(len(metrics), same_y=False)
    for axes, metric in zip(grid, metrics, strict=True):
        against_density(axes, sweep, kept[kept["metric"] == metric], STABILITY[metric])
        axes.set_title(name_of(metric))
    _name_x(grid, DENSITY)
    legend(figure, grid)
    caption(
        figure,
        f"{subject(sweep, kept)} Corrupted: mean accuracy over all corruptions and severities. Shifts: how often two shifted "
        "copies of an image get the same class. Jacobian: of the calibrated logits in the pixels. Hessian: largest "
        f"eigenvalue of the loss in the living weights, on training images. {marks(kept)}",
    )
    return figure


def differences(sweep: Sweep) -> Figure | None:
    """Accuracy less that of dense, seed by seed, clean and at each eps, against density; None without a dense network."""
    averages = over_seeds(sweep.frame)
    kept = averages[averages["metric"].isin(["difference_clean_accuracy", "difference_robust_accuracy"])]
    if kept.empty:
        return None
    charts = kept.sort_values(["metric", "eps"]).drop_duplicates("chart").to_dict("records")
    figure, grid = panels(len(charts))
    for axes, chart in zip(grid, charts, strict=True):
        against_density(axes, sweep, kept[kept["chart"] == chart["chart"]], (-1.0, 1.0))
        axes.axhline(0.0, color="black", linewidth=0.8)
        robust = chart["metric"] == "difference_robust_accuracy"
        axes.set_title(f"robust, eps = {eps_text(chart['eps'])}" if robust else "clean")
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:+.0f}")
    _name_x(grid, DENSITY)
    figure.supylabel("points of accuracy, less dense of the same seed", fontsize=8)
    legend(figure, grid)
    caption(figure, f"{subject(sweep, kept)} The same images for both networks of every pair. {marks(kept)}")
    return figure


def pareto(sweep: Sweep) -> Figure | None:
    """Bits of the model's description against robust accuracy, with the front; None if one of the two is missing."""
    from lightning_sparse.report.style import caption, legend, panels
    from lightning_sparse.report.verdicts import is_worst

    averages = over_seeds(sweep.frame)
    bits = _by_level(averages[averages["metric"] == "cost_bits"])
    worst = averages[is_worst(averages)]
    if bits.empty or worst.empty:
        return None
    charts = worst.sort_values("eps").drop_duplicates("chart").to_dict("records")
    figure, grid = panels(len(charts), height=2.5)
    ways = {"dense": {"color": DENSE, "marker": "*"}} | looks(sweep.jobs["method"])
    for axes, chart in zip(grid, charts, strict=True):
        points = bits.join(_by_level(worst[worst["chart"] == chart["chart"]]), lsuffix="_bits", how="inner")
        for method, of_method in points.groupby(level="method"):
            look = {**ways[str(method)], "linestyle": ""}
            axes.plot(of_method["mean_bits"] / 1e3, of_method["mean"], label=str(method), **look)
        hollow(axes, points.assign(kilobits=points["mean_bits"] / 1e3), "kilobits", "#777777")
        points = points[points["distrusted"] == ""]
        front = points[[not _beaten(points, line) for line in points.itertuples()]].sort_values("mean_bits")
        axes.step(front["mean_bits"] / 1e3, front["mean"], where="post", color="#999999", linewidth=0.9, zorder=1)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "25" else "")
        axes.set_title(f"eps = {eps_text(chart['eps'])}")
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    _name_x(grid, "description length, kilobits")
    figure.supylabel("robust accuracy, worst case", fontsize=8)
    legend(figure, grid)
    caption(
        figure,
        f"{subject(sweep, worst)} Bits: mask, values, the rest of the parameters, and the training labels given the model. "
        "Grey: the Pareto front, which no other network beats in both. Hollow: a check of trust failed. Means over seeds.",
    )
    return figure


def transfer(sweep: Sweep, method: str) -> Figure | None:
    """Heat map of a method: accuracy of each network (columns) on images crafted on each other (rows)."""
    averages = over_seeds(sweep.frame)
    kept = averages[(averages["metric"] == "transfer_accuracy") & averages["method"].isin(["dense", method])]
    kept = kept[kept["condition"].isin(["dense"]) | kept["condition"].str.startswith(f"{method} ")]
    if kept["condition"].nunique() < 2 or not (kept["method"] == method).any():
        return None
    from matplotlib.figure import Figure

    kept = kept.assign(target=[_level_name(line) for line in kept.to_dict("records")])
    table = kept.pivot_table(index="condition", columns="target", values="mean")
    order = sorted(table.columns, key=lambda name: (name != "dense", float(name.split()[-1]) if " " in name else 0.0))
    table = table.reindex(index=order, columns=order)
    size = 0.62 * len(order) + 1.6
    figure = Figure(figsize=(max(size, 4.2), size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(table.to_numpy(), cmap="viridis", vmin=0, vmax=1)
    axes.grid(False)
    short = [name.split()[-1] for name in order]
    axes.set_xticks(range(len(order)), labels=short)
    axes.set_yticks(range(len(order)), labels=short)
    for i, row in enumerate(table.to_numpy()):
        for j, value in enumerate(row):
            if value == value:
                axes.text(
                    j, i, f"{100 * value:.0f}", ha="center", va="center", color="white" if value < 0.6 else "black"
                )
    axes.set_xlabel("attacked: sparsity")
    axes.set_ylabel("crafted on: sparsity")
    axes.set_title(f"{method}: accuracy, %")
    eps = eps_text(float(kept["eps"].iloc[0]))
    caption(
        figure,
        f"{sweep.name}: accuracy on adversarial images, PGD on the margin at eps = {eps}, n = {int(kept['n'].min())} test "
        "images, mean over seeds. The diagonal is the white box; a column with a lower number elsewhere was attacked too "
        "weakly.",
    )
    return figure


def _name_x(grid: list[Axes], name: str) -> None:
    for axes in lowest(grid):
        axes.set_xlabel(name)


def _level_name(line: dict[Any, Any]) -> str:
    return "dense" if line["method"] == "dense" else f"{line['method']} {line['sparsity_asked']:g}"


def _by_level(lines: pd.DataFrame) -> pd.DataFrame:
    return lines.set_index(["method", "sparsity_asked"])[["mean", "distrusted"]]


def _beaten(points: pd.DataFrame, line: object) -> bool:
    """Whether another network is at least as good in both, and better in one."""
    bits, robust = line.mean_bits, line.mean  # type: ignore[attr-defined]
    at_least = (points["mean_bits"] <= bits) & (points["mean"] >= robust)
    return bool((at_least & ((points["mean_bits"] < bits) | (points["mean"] > robust))).any())
