"""How well a score tells two groups apart, whatever the threshold."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from lightning_sparse.errors import SparsityError
from lightning_sparse.statistics.intervals import Z
from lightning_sparse.statistics.numbers import numbers


def auroc(scores: npt.ArrayLike, positive: npt.ArrayLike) -> tuple[float, float, float]:
    """Give the area under the ROC curve, and its interval (95 %) by Hanley & McNeil 1982.

    It is the share of pairs, one of each group, in which the positive one has the higher score; equal scores count one half.

    Args:
        scores: (n,), one for each; NaN is left out.
        positive: (n,), booleans.

    Returns:
        The area, lower end, upper end, in [0, 1]: 0.5 is chance, 0 is perfect the wrong way round. NaN if a group is empty.

    Raises:
        SparsityError: if these are not two rows of one length, the second of booleans.

    Example:
        >>> area, low, high = auroc([3.0, 2.0, 2.0, 1.0], [True, True, False, False])
        >>> area  # of four pairs one is equal
        0.875
    """
    values, chosen = numbers("scores", scores), np.asarray(positive)
    if values.ndim != 1 or chosen.shape != values.shape or chosen.dtype != np.bool_:
        raise SparsityError(
            f"positive is {chosen.dtype} of shape {chosen.shape}, and scores have shape {values.shape}: give (n,) scores and "
            "(n,) booleans"
        )
    defined = ~np.isnan(values)
    values, chosen = values[defined], chosen[defined]
    yes, no = int(chosen.sum()), int((~chosen).sum())
    if not yes or not no:
        return math.nan, math.nan, math.nan
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[group]  # from 1; equal scores share their mean rank
    area = float((ranks[chosen].sum() - yes * (yes + 1) / 2) / (yes * no))
    both_yes, both_no = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (yes - 1) * (both_yes - area**2) + (no - 1) * (both_no - area**2)
    half = Z * math.sqrt(max(0.0, variance) / (yes * no))
    return area, max(0.0, area - half), min(1.0, area + half)
