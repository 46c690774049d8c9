"""95 % confidence intervals: of a share, of a mean over images, of a mean over a few seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from lightning_sparse.extras import need
from lightning_sparse.statistics.numbers import numbers, whole

Z = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution: half the width of a 95 % interval, in standard errors."""

Values = Sequence[float] | npt.NDArray[np.floating]


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Give the Wilson score interval (95 %) of a share (Wilson 1927).

    Unlike ``p +- 1.96 sqrt(p (1-p) / n)`` it stays in [0, 1] and is not empty at 0 or n successes.

    Args:
        successes: how many of ``n`` succeeded, in [0, n].
        n: number of trials.

    Returns:
        Lower and upper end, in [0, 1]; NaN for ``n`` = 0.

    Raises:
        SparsityError: if ``n`` is not a whole number, or ``successes`` not one in [0, n].

    Example:
        >>> low, high = wilson(0, 100)
        >>> f"{low:.3f} to {high:.3f}"
        '0.000 to 0.037'
    """
    n = whole("n", n)
    successes = whole("successes", successes, most=n)
    if n == 0:
        return math.nan, math.nan
    share = successes / n
    shrink = 1 + Z**2 / n
    centre = (share + Z**2 / (2 * n)) / shrink
    half = Z / shrink * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    # At 0 and n successes the formula gives 0 and 1, up to rounding errors.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return low, high


def mean_interval(values: Values) -> tuple[float, float, float]:
    """Give the mean of a number per image, and its normal interval (95 %).

    Args:
        values: one number per image; NaN (undefined for that image) is left out.

    Returns:
        Mean, lower end, upper end. The ends are NaN for fewer than two defined values, the mean is NaN for none.

    Raises:
        SparsityError: if ``values`` are not numbers.

    Example:
        >>> mean, low, high = mean_interval([1.0, 2.0, 3.0, float("nan")])
        >>> f"{mean:.2f} ({low:.2f} to {high:.2f})"
        '2.00 (0.87 to 3.13)'
    """
    return _around_mean(values, lambda n: Z)


def t_interval(values: Values) -> tuple[float, float, float]:
    """Give the mean over a few seeds, and its Student t interval (95 %).

    Args:
        values: one number per seed; NaN is left out.

    Returns:
        Mean, lower end, upper end. The ends are NaN for fewer than two defined values, the mean is NaN for none.

    Raises:
        SparsityError: if ``values`` are not numbers, or scipy is missing.

    Example:
        >>> mean, low, high = t_interval([0.70, 0.72, 0.74])
        >>> f"{mean:.3f} ({low:.3f} to {high:.3f})"
        '0.720 (0.670 to 0.770)'
    """
    return _around_mean(values, lambda n: float(need("scipy.special").stdtrit(n - 1, 0.975)))


def _around_mean(values: Values, quantile: Callable[[int], float]) -> tuple[float, float, float]:
    array = numbers("values", values).ravel()
    defined = array[~np.isnan(array)]
    if defined.size < 2:
        return (float(defined[0]) if defined.size else math.nan), math.nan, math.nan
    mean, half = float(defined.mean()), quantile(defined.size) * float(defined.std(ddof=1)) / math.sqrt(defined.size)
    return mean, mean - half, mean + half
