"""Which rows are robust accuracies in the worst case, and what the verdicts on them say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def failed_checks(verdicts: Iterable[str]) -> list[str]:
    """Name every check that failed in any of these verdicts.

    Example:
        >>> failed_checks(["passed", "failed: noise, zero gradients", "", "failed: noise"])
        ['noise', 'zero gradients']
    """
    failed = (verdict.removeprefix("failed: ") for verdict in verdicts if verdict.startswith("failed"))
    return sorted({check for verdict in failed for check in verdict.split(", ")})


def is_worst(averages: pd.DataFrame) -> pd.Series[bool]:
    """Mark the robust accuracies in the worst case over all attacks."""
    return (averages["metric"] == "robust_accuracy") & (averages["attack"] == "worst")
