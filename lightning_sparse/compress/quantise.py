"""Values rounded to a grid of evenly spaced levels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def quantise(values: Floats, width: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """Round values (k,) to 2^width evenly spaced levels, the first at their minimum and the last at their maximum.

    Returns:
        The number of each value's level, and the value of that level.

    Example:
        >>> levels, rounded = quantise(np.array([0.0, 0.9, 2.2, 3.0]), 2)
        >>> levels.tolist(), rounded.tolist()
        ([0, 1, 2, 3], [0.0, 1.0, 2.0, 3.0])
    """
    if len(values) == 0 or values.min() == values.max():
        return np.zeros(len(values), dtype=np.int64), values
    low, high = float(values.min()), float(values.max())
    levels = np.rint((values - low) / _step(low, high, width)).astype(np.int64)
    return levels, values_of(levels, low, high, width)


def values_of(levels: npt.NDArray[np.integer], low: float, high: float, width: int) -> Floats:
    """The values of levels on the grid of :func:`quantise` from ``low`` to ``high``, to the last bit.

    Example:
        >>> values_of(np.array([0, 3, 1]), -1.0, 2.0, 2).tolist()
        [-1.0, 2.0, 0.0]
    """
    return low + levels.astype(np.float64) * _step(low, high, width)


def _step(low: float, high: float, width: int) -> float:
    return (high - low) / ((1 << width) - 1)
