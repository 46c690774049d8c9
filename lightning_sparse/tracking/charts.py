"""Line charts of a sweep: against density, against eps, and against kilobits with the Pareto front."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_sparse.tables.frames import accuracies, described
from lightning_sparse.tables.method_names import OF_BITS, level_words
from lightning_sparse.tables.pareto import pareto

if TYPE_CHECKING:
    import pandas as pd

Series = dict[str, tuple[list[float], list[float]]]


def charts(averages: pd.DataFrame, title: str, *, by_bits: bool = False) -> dict[str, Any]:
    """Draw all charts of one data set and model.

    Args:
        averages: as :func:`~lightning_sparse.tables.averages.over_seeds` gives them.
        title: of the data set and model; empty if the sweep has only one.
        by_bits: whether all levels are of bits, so that what would be density is their share of dense float32.

    Returns:
        ``versus density/<chart>`` (or ``versus bits``), and ``versus kilobits/eps=...`` with the Pareto front, with a line
        per method; ``versus eps/<method>``, the security curves, with a line per level. The title comes after the first
        slash. `wandb leet` shows only the sizes of the charts' tables, and sorts charts with these names behind the numbers.
    """
    averages = averages.dropna(subset=["mean"])
    drawn = {}
    for chart, lines in charted(averages).groupby("chart"):
        name = slashed("versus bits" if by_bits else "versus density", title, str(chart))
        across = OF_BITS if by_bits else "density"
        drawn[name] = _lines(_against_density(lines), f"{chart}, mean over seeds", title, across)
    for method, curves in _security(averages, by_bits).items():
        name = slashed("versus eps", title, method)
        drawn[name] = _lines(curves, f"{method}: robust accuracy, worst case, mean over seeds", title, "eps")
    for eps, curves in _pareto(averages).items():
        name, says = (
            slashed("versus kilobits", title, f"eps={eps:.4g}"),
            f"robust accuracy at eps = {eps:.4g}, worst case",
        )
        drawn[name] = _lines(curves, says, title, "description length, kilobits")
    return drawn


def charted(averages: pd.DataFrame) -> pd.DataFrame:
    """The quantities that the report shows, and under attack only the worst case."""
    return averages[(described(averages, "heading") != "") & averages["attack"].isin(["", "worst"])]


def _against_density(lines: pd.DataFrame) -> Series:
    """One line per method; dense is a level line."""
    sparse = lines[lines["method"] != "dense"].sort_values("sparsity_asked")
    methods = sparse.groupby("method")
    series = {str(method): (list(1 - line["sparsity_asked"]), list(line["mean"])) for method, line in methods}
    for level in lines.loc[lines["method"] == "dense", "mean"]:
        across = sorted({1 - sparsity for sparsity in sparse["sparsity_asked"]} | {1.0})
        series["dense"] = (across, [level] * len(across))
    return series


def _security(averages: pd.DataFrame, by_bits: bool) -> dict[str, Series]:
    """For each method, one line per level over eps, and that of dense; at eps 0 it is the clean accuracy."""
    kept = accuracies(averages).fillna({"eps": 0.0})
    if not kept["eps"].any():
        return {}
    is_dense = kept["method"] == "dense"
    dense = {"dense": _curve(kept[is_dense])} if is_dense.any() else {}
    found = {
        str(method): dense
        | {
            level_words(line["sparsity_asked"].iloc[0], by_bits): _curve(line)
            for _, line in lines.groupby("sparsity_asked")
        }
        for method, lines in kept[~is_dense].groupby("method")
    }
    return found or {"dense": dense}


def _curve(line: pd.DataFrame) -> tuple[list[float], list[float]]:
    line = line.sort_values("eps")
    return list(line["eps"]), list(line["mean"])


def _pareto(averages: pd.DataFrame) -> dict[float, Series]:
    """For each eps, one line per method through its levels, and the front of those that passed all checks of trust."""
    found = {}
    for points in pareto(averages):
        points = points.sort_values("kilobits")
        lines = {str(method): line for method, line in points.groupby("method")}
        lines["Pareto front"] = points[points["front"]]
        series = {name: (list(line["kilobits"]), list(line["mean"])) for name, line in lines.items() if len(line)}
        found[float(points["eps"].iloc[0])] = series
    return found


def _lines(series: Series, says: str, title: str, xname: str) -> Any:
    import wandb

    return wandb.plot.line_series(
        xs=[x for x, _ in series.values()],
        ys=[y for _, y in series.values()],
        keys=list(series),
        title=says + (f" ({title})" if title else ""),
        xname=xname,
    )


def slashed(*parts: str) -> str:
    """Join the parts of a chart's name that are not empty."""
    return "/".join(part for part in parts if part)
