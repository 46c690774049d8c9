"""Bits of a network's description against its robust accuracy, and the networks on the Pareto front."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from lightning_sparse.tables.frames import is_worst

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
    return [points.assign(front=on_front(points)) for _, _, points in by_size]


def on_front(points: pd.DataFrame) -> pd.Series[bool]:
    """Mark the lines that no other beats in ``kilobits`` and ``mean``, never one that failed a check of trust.

    Example:
        >>> import pandas as pd
        >>> points = pd.DataFrame({"kilobits": [3, 1, 2, 2], "mean": [0.5, 0.2, 0.6, 0.4], "distrusted": [()] * 4})
        >>> on_front(points).tolist()
        [False, True, True, False]
    """
    order = points.sort_values(["kilobits", "mean"], ascending=[True, False])
    worth = order["mean"].mask(order["distrusted"].astype(bool))
    best_before = worth.cummax().ffill().shift(fill_value=-inf).fillna(-inf)
    return (worth > best_before).reindex(points.index)
