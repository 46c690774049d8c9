"""Records as a table: one line each."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from lightning_sparse.results.quantities import quantity
from lightning_sparse.results.records import Record

if TYPE_CHECKING:
    import pandas as pd

NUMBERS = {"value": float, "low": float, "high": float, "eps": float, "sparsity_asked": float, "sparsity": float}


def frame_of(records: list[Record]) -> pd.DataFrame:
    """Turn records into a DataFrame with one line each, and every column even without records.

    Example:
        >>> frame = frame_of([Record("gini", 0.5, 10, attribution="gradient")])
        >>> frame[["chart", "value", "n"]].to_dict("records")
        [{'chart': 'saliency/gradient/gini', 'value': 0.5, 'n': 10}]
    """
    import pandas as pd

    columns = [field.name for field in fields(Record)] + ["chart"]
    frame = pd.DataFrame([asdict(record) | {"chart": record.chart} for record in records], columns=columns)
    # Else a column of None alone (no attack was run) would hold objects, and an empty frame no numbers at all.
    return frame.astype(NUMBERS)


def described(frame: pd.DataFrame, what: str) -> pd.Series[Any]:
    """One attribute of the :class:`~lightning_sparse.results.quantities.Quantity` of each line.

    Example:
        >>> described(frame_of([Record("clean_accuracy", 0.5, 10), Record("gini", 0.5, 10)]), "unit").tolist()
        ['%', '']
    """
    return frame["metric"].map(lambda metric: getattr(quantity(metric), what))


def latest(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep only the newest row of each quantity of each job: measuring again appends, and must not count twice."""
    return frame.drop_duplicates(["run", "data", "model", "method", "seed", "sparsity_asked", "chart"], keep="last")


def lines_of(frame: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The lines with these values; NaN (an unknown level) equals NaN here.

    Example:
        >>> frame = frame_of([Record("gini", 0.5, 9, sparsity_asked=float("nan")), Record("gini", 0.4, 9)])
        >>> lines_of(frame, metric="gini", sparsity_asked=float("nan"))["value"].tolist()
        [0.5]
    """
    for name, value in values.items():
        frame = frame[frame[name].isna() if value != value else frame[name] == value]
    return frame


def accuracies(averages: pd.DataFrame) -> pd.DataFrame:
    """Clean accuracy, and robust accuracy in the worst case."""
    return averages[(averages["metric"] == "clean_accuracy") | is_worst(averages)]


def is_worst(averages: pd.DataFrame) -> pd.Series[bool]:
    """Mark the robust accuracies in the worst case over all attacks."""
    return (averages["metric"] == "robust_accuracy") & (averages["attack"] == "worst")


def middle_worst(averages: pd.DataFrame) -> dict[str, Any] | None:
    """A worst case at the middle eps, which is chosen by its place in the list and not by its numbers; None without one."""
    worst = averages[is_worst(averages)].drop_duplicates("chart").sort_values("eps")
    return worst.to_dict("records")[(len(worst) - 1) // 2] if len(worst) else None  # type: ignore[return-value]
