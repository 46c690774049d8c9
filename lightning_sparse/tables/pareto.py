"""What a network takes (bits, time, bytes) against its accuracy, and the networks on the Pareto front."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from lightning_sparse.tables.frames import is_worst, middle_worst

if TYPE_CHECKING:
    import pandas as pd

LEVEL = ["method", "sparsity_asked"]


def pareto(averages: pd.DataFrame) -> list[pd.DataFrame]:
    """Put bits beside worst-case robust accuracy, for one data set and model.

    Returns:
        A table for each size of the perturbation, the smallest first: the lines of ``averages`` with ``kilobits`` and
        ``front``. Empty if one of the two was not measured.
    """
    bits = averages[averages["metric"] == "cost_bits"]
    bits = bits.assign(kilobits=bits["mean"] / 1e3)[[*LEVEL, "kilobits"]]
    worst = averages[is_worst(averages) & averages["eps"].notna()].merge(bits, on=LEVEL)
    by_size = sorted((points["eps"].iloc[0], chart, points) for chart, points in worst.groupby("chart"))
    return [points.assign(front=on_front(points, "kilobits")) for _, _, points in by_size]


def against(averages: pd.DataFrame, taken: pd.DataFrame, x: str, scale: float = 1.0) -> list[pd.DataFrame]:
    """Put what the best form of each network takes beside its accuracy, clean and in the worst case at the middle eps.

    Args:
        averages: of one data set and model.
        taken: those of its lines that are about what is taken, one for each form of a network: the last word of the metric.
        x: name of the new column with the least of them.
        scale: what it is multiplied by.

    Returns:
        A table for each of the two accuracies that was measured, with ``x``, ``form`` (which takes least) and ``front``.
    """
    least = taken.sort_values("mean").drop_duplicates(LEVEL)
    least = least.assign(form=least["metric"].str.rsplit("_", n=1).str[-1], **{x: scale * least["mean"]})
    charts = ["clean/accuracy"] + ([middle["chart"]] if (middle := middle_worst(averages)) else [])
    found = [averages[averages["chart"] == chart].merge(least[[*LEVEL, x, "form"]], on=LEVEL) for chart in charts]
    return [points.assign(front=on_front(points, x)) for points in found if len(points)]


def on_front(points: pd.DataFrame, x: str) -> pd.Series[bool]:
    """Mark the lines that no other beats in ``x``, of which less is better, and ``mean``; never one that failed a check.

    Example:
        >>> import pandas as pd
        >>> points = pd.DataFrame({"kilobits": [3, 1, 2, 2], "mean": [0.5, 0.2, 0.6, 0.4], "distrusted": [()] * 4})
        >>> on_front(points, "kilobits").tolist()
        [False, True, True, False]
    """
    order = points.sort_values([x, "mean"], ascending=[True, False])
    worth = order["mean"].mask(order["distrusted"].astype(bool))
    best_before = worth.cummax().ffill().shift(fill_value=-inf).fillna(-inf)
    return (worth > best_before).reindex(points.index)
