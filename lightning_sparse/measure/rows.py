"""Records of a share and of a mean, each with its interval over images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_sparse.results.records import Record
from lightning_sparse.statistics.intervals import mean_interval, wilson


def share_row(metric: str, hits: int, n: int, **others: Any) -> Record:
    """Record the share ``hits / n`` of images with its Wilson interval; NaN if ``n`` is 0.

    Example:
        >>> share_row("clean_accuracy", 3, 4, detail="top-1").value
        0.75
    """
    return Record(metric, hits / n if n else math.nan, n, *wilson(hits, n), **others)


def mean_row(metric: str, values: npt.NDArray[np.floating], **others: Any) -> Record:
    """Record the mean of one number per image, (n,), with its normal interval; the mean leaves NaN out, ``n`` counts it.

    Example:
        >>> row = mean_row("clean_cross_entropy", np.array([1.0, 3.0]), detail="nats")
        >>> row.value, row.n
        (2.0, 2)
    """
    mean, low, high = mean_interval(values)
    return Record(metric, mean, len(values), low, high, **others)
