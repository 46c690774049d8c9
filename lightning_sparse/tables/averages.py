"""Means over seeds, with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_sparse.results.verdicts import failed_checks
from lightning_sparse.tables.frames import latest

if TYPE_CHECKING:
    import pandas as pd

LINE = ["data", "model", "method", "sparsity_asked"]
QUANTITY = ["chart", "metric", "attack", "norm", "eps", "attribution", "condition"]


def over_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """Average every quantity over seeds, from a :class:`~lightning_sparse.tables.collect.Sweep`'s ``frame``.

    Returns:
        One line per data set, model, method, sparsity and quantity. ``low``, ``high`` and ``half`` (half the width) are the
        95 % Student-t interval around the ``mean``, NaN for a single seed; ``values`` are the numbers themselves and
        ``seeds`` their count, without undefined ones (NaN); ``sparsity`` is the mean achieved, ``n`` the smallest number of
        images, and ``distrusted`` names the checks of trust that failed for any seed.
    """
    import pandas as pd

    lines = []
    # dropna=False: eps is NaN without an attack.
    for key, group in latest(frame).groupby(LINE + QUANTITY, dropna=False, sort=True):
        values = [float(value) for value in group["value"].dropna()]
        mean, low, high = interval(values)
        line: dict[str, Any] = dict(zip(LINE + QUANTITY, key, strict=True))
        line |= {"mean": mean, "low": low, "high": high, "half": (high - low) / 2, "seeds": len(values)}
        line |= {"sparsity": group["sparsity"].mean(), "n": int(group["n"].min())}
        lines.append(line | {"values": values, "distrusted": tuple(sorted(failed_checks(group["trust"])))})
    numbers = ["mean", "low", "high", "half", "seeds", "values", "sparsity", "n", "distrusted"]
    return pd.DataFrame(lines, columns=LINE + QUANTITY + numbers)


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and 95 % Student-t interval; the ends are NaN for one value, and so is the mean for none.

    Example:
        >>> interval([0.5])
        (0.5, nan, nan)
    """
    nan = float("nan")
    if len(values) < 2:
        return (values[0] if values else nan, nan, nan)
    from lightning_sparse.statistics.intervals import t_interval

    mean, low, high = t_interval(values)
    return float(mean), float(low), float(high)
