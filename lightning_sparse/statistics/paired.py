"""Whether two models differ: on the same images, pair by pair, and over seeds."""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lightning_sparse.errors import SparsityError
from lightning_sparse.extras import need
from lightning_sparse.statistics.intervals import Z
from lightning_sparse.statistics.numbers import numbers


class Difference(NamedTuple):
    """A difference, its 95 % interval, and the p-value of no difference."""

    difference: float
    low: float
    high: float
    p: float


def mcnemar(a_right: npt.ArrayLike, b_right: npt.ArrayLike) -> Difference:
    """Compare the accuracy of two models on the same images (McNemar 1947).

    Only discordant images, those that just one of the two gets right, tell the models apart: images that both get right
    or wrong add no noise.

    Args:
        a_right: (n,), whether model a is right on each image (or robust, or anything that is true or false of it).
        b_right: (n,), the same for model b, of the same images in the same order.

    Returns:
        ``difference``: accuracy of a minus accuracy of b, in [-1, 1]. ``low``, ``high``: the adjusted Wald interval of
        Bonett & Price 2012, which adds one image to each kind of discordant ones (recommended by Fagerland et al. 2014);
        it covers the truth in at least 95 % of samples, even with 50 images of which hardly one is discordant. ``p``:
        exact and two-sided, from the binomial distribution of the discordant images; 1 if there are none. The interval and
        the p-value are computed differently and can disagree in borderline cases.

    Raises:
        SparsityError: if the arguments are not booleans for the same images, or scipy is missing.

    Example:
        >>> a, b = [True] * 8 + [False] * 2, [True] * 2 + [False] * 8
        >>> result = mcnemar(a, b)
        >>> f"{result.difference:.2f} ({result.low:.2f} to {result.high:.2f}), p = {result.p:.3f}"
        '0.60 (0.13 to 0.87), p = 0.031'
    """
    a, b = _right("a_right", a_right), _right("b_right", b_right)
    if len(a) != len(b):
        raise SparsityError(f"a_right has {len(a)} images and b_right {len(b)}: give the same images in the same order")
    n, only_a, only_b = len(a), int((a & ~b).sum()), int((b & ~a).sum())
    p = need("scipy.stats").binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return Difference((only_a - only_b) / n, *bonett_price(only_a, only_b, n), float(p))


def bonett_price(only_a: int, only_b: int, n: int) -> tuple[float, float]:
    """The interval of :func:`mcnemar`, given how many of ``n`` images only one of the models gets right.

    Example:
        >>> low, high = bonett_price(6, 0, 10)  # as above
        >>> f"{low:.2f} to {high:.2f}"
        '0.13 to 0.87'
    """
    share_a, share_b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = Z * math.sqrt((share_a + share_b - (share_a - share_b) ** 2) / (n + 2))
    return max(-1.0, share_a - share_b - half), min(1.0, share_a - share_b + half)


def holm(p_values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Adjust p-values for their number by Holm's step-down method (Holm 1979).

    The chance that even one of those adjusted to 0.05 or less is a false alarm is at most 5 %, however the tests depend on
    each other.

    Args:
        p_values: (k,), of all tests made, each in [0, 1]; NaN is a test that could not be made and does not count.

    Returns:
        (k,), in [0, 1], in the order given; NaN stays NaN.

    Raises:
        SparsityError: if ``p_values`` is not (k,) or one is outside [0, 1].

    Example:
        >>> holm([0.01, 0.04, 0.03, 0.005]).round(3).tolist()
        [0.03, 0.06, 0.06, 0.02]
    """
    values = _row("p_values", p_values)
    made = np.flatnonzero(~np.isnan(values))
    if ((values[made] < 0) | (values[made] > 1)).any():
        raise SparsityError(f"p_values={p_values!r} are not all in [0, 1]: give p-values, not statistics or percent")
    ascending = made[np.argsort(values[made], kind="stable")]
    adjusted = np.full(len(values), math.nan)
    steps = values[ascending] * np.arange(len(ascending), 0, -1)
    adjusted[ascending] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def welch(a: npt.ArrayLike, b: npt.ArrayLike) -> Difference:
    """Compare two groups of seeds by Welch's t-test, which lets their spreads differ (Welch 1947).

    Args:
        a: one number per seed of method a.
        b: one number per seed of method b, not necessarily as many; NaN is left out of both.

    Returns:
        ``difference``: mean of a minus mean of b; its 95 % t interval; the two-sided p-value. Interval and p-value are NaN
        with fewer than two seeds in a group, or if the numbers are all equal within each group.

    Raises:
        SparsityError: if ``a`` or ``b`` is not one row of numbers, or scipy is missing.

    Example:
        >>> result = welch([0.70, 0.72, 0.74], [0.60, 0.64, 0.62])
        >>> f"{result.difference:.2f} ({result.low:.3f} to {result.high:.3f}), p = {result.p:.4f}"
        '0.10 (0.055 to 0.145), p = 0.0036'
    """
    first, second = _defined("a", a), _defined("b", b)
    if not len(first) or not len(second):
        return Difference(math.nan, math.nan, math.nan, math.nan)
    difference = float(first.mean() - second.mean())
    if min(len(first), len(second)) < 2 or (np.ptp(first) == 0 and np.ptp(second) == 0):
        return Difference(difference, math.nan, math.nan, math.nan)
    with warnings.catch_warnings():
        # Scipy warns of lost precision if one of the groups is constant, which does no harm here.
        warnings.simplefilter("ignore", RuntimeWarning)
        test = need("scipy.stats").ttest_ind(first, second, equal_var=False)
        low, high = test.confidence_interval(0.95)
    return Difference(difference, float(low), float(high), float(test.pvalue))


def _row(name: str, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = numbers(name, values)
    if array.ndim != 1:
        raise SparsityError(f"{name} has shape {array.shape}: give one row of numbers")
    return array


def _defined(name: str, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = _row(name, values)
    return array[~np.isnan(array)]


def _right(name: str, values: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):  # a list of lists of different lengths, for one
        array = np.empty(0, dtype=object)
    if array.dtype != np.bool_ or array.ndim != 1 or not len(array):
        raise SparsityError(f"{name} is {array.dtype} of shape {array.shape}: give (n,) booleans, one per image")
    return array
