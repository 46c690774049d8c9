"""Measures of saliency maps that need no model: how concentrated, how complex, which pixels come first.

A place that is NaN does not exist: a text is padded there. Nothing counts it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.arrays import check_array
from lightning_sparse.results.records import Record
from lightning_sparse.statistics.intervals import mean_interval

Maps = Tensor | npt.NDArray[np.floating] | npt.NDArray[np.bool_]

_BINS = 100


def magnitudes(name: str, maps: Maps) -> npt.NDArray[np.float64]:
    """Return the absolute values of maps (n, H, W) as rows (n, H * W); ``name`` is for the message if the shape is wrong.

    Example:
        >>> magnitudes("maps", torch.ones(2, 3, 4)).shape
        (2, 12)
    """
    array = check_array(name, maps, "(n, H, W)")
    if array.shape[1] * array.shape[2] == 0:
        raise SparsityError(f"{name} has shape {array.shape}: give maps of one pixel at least")
    return np.abs(array.reshape(len(array), -1).astype(np.float64))


def gini(maps: Maps) -> npt.NDArray[np.float64]:
    """Compute the Gini index of each map's absolute values: how few pixels hold it (Hurley & Rickard 2009).

    With the d values sorted ascending, ``G = sum_k (2k - d - 1) a_k / (d sum a)``: 0 if all are equal, (d - 1) / d if
    all but one are zero. It does not depend on the map's scale.

    Args:
        maps: (n, H, W); NaN is no pixel.

    Returns:
        (n,), in [0, 1); NaN for a map of zeros, which a dead network gives.

    Raises:
        SparsityError: if ``maps`` is not (n, H, W).

    Example:
        >>> gini(np.array([[[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, -3.0]], [[0.0, 0.0], [0.0, 0.0]]]))
        array([0.  , 0.75,  nan])
    """
    values = np.sort(magnitudes("maps", maps), axis=1)  # NaN last
    d = places(values).sum(axis=1)
    values = np.where(places(values), values, 0.0)
    total = values.sum(axis=1)
    weighted = (values * (2 * np.arange(1, values.shape[1] + 1) - d[:, None] - 1)).sum(axis=1)
    return quotient(weighted, d * total, total > 0)


def complexity(maps: Maps) -> npt.NDArray[np.float64]:
    """Compute the entropy of the histogram of each map's absolute values (after Hedstrom et al. 2024, arXiv 2401.06465).

    The histogram has 100 equal bins from the map's smallest to its largest value, so that the scale does not matter. The
    entropies (n,) are in [0, log 100], in nats; NaN for a constant map, which has no range to divide.

    Example:
        >>> two_levels = np.array([[[0.0, 0.0], [1.0, 1.0]]])
        >>> complexity(two_levels), np.log(2)
        (array([0.69314718]), np.float64(0.6931471805599453))
    """
    values = magnitudes("maps", maps)
    result = np.full(len(values), np.nan)
    for i, varies in enumerate(varied(values)):
        if varies:
            row = values[i][places(values[i])]
            # Scaled first: if the range is as small as the spacing of floats, its bins would have the same edges.
            share = np.histogram((row - row.min()) / (row.max() - row.min()), _BINS, (0.0, 1.0))[0] / len(row)
            result[i] = -(share[share > 0] * np.log(share[share > 0])).sum()
    return result


def places(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which places of rows (n, d) of maps exist."""
    return ~np.isnan(values)


def varied(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which rows (n, d) of maps put their places in some order at all, (n,).

    Example:
        >>> varied(np.array([[1.0, 2.0, np.nan], [2.0, 2.0, np.nan]]))
        array([ True, False])
    """
    there = places(values)
    highest, lowest = np.where(there, values, -np.inf).max(axis=1), np.where(there, values, np.inf).min(axis=1)
    found: npt.NDArray[np.bool_] = highest > lowest
    return found


def quotient(
    part: npt.NDArray[Any], whole: npt.NDArray[Any], defined: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Divide image by image, NaN where ``defined`` is false; all (n,).

    Example:
        >>> quotient(np.array([1.0, 1.0]), np.array([4.0, 0.0]), np.array([True, False]))
        array([0.25,  nan])
    """
    result = np.full(len(part), np.nan)
    np.divide(part, whole, out=result, where=defined)
    return result


def ranks(values: Tensor, seed: int) -> Tensor:
    """Rank each row's values (n, d), 0 for the highest; equal ones in an order drawn for each row, so no place is favoured.

    NaN comes last.

    Example:
        >>> ranks(torch.tensor([[0.5, 2.0, 1.0]]), seed=0)
        tensor([[2, 0, 1]])
    """
    shuffle = torch.rand(values.shape, generator=torch.Generator().manual_seed(seed)).argsort(dim=1)
    values = values.masked_fill(values.isnan(), -torch.inf)
    order = values.gather(1, shuffle).argsort(dim=1, descending=True, stable=True)
    return shuffle.gather(1, order).argsort(dim=1)


def check_keep(keep: object, n: int) -> None:
    """Refuse anything but None or booleans (n,).

    Example:
        >>> check_keep([0, 2], 3)
        Traceback (most recent call last):
        lightning_sparse.SparsityError: keep is a list, not booleans of shape (3,): give what same_images returns
    """
    if keep is not None and not (isinstance(keep, np.ndarray) and keep.shape == (n,) and keep.dtype == np.bool_):
        what = f"{keep.dtype} of shape {keep.shape}" if isinstance(keep, np.ndarray) else f"a {type(keep).__name__}"
        raise SparsityError(f"keep is {what}, not booleans of shape ({n},): give what same_images returns")


def attribution_row(metric: str, values: npt.NDArray[np.float64], attribution: str, detail: str) -> Record:
    """Record the mean of one number per image where it is defined, and say for how many images it is not.

    Example:
        >>> attribution_row("gini", np.array([0.5, 0.7, np.nan]), "gradient", "of the gradient").detail
        'of the gradient; undefined for 1 of 3, left out'
    """
    mean, low, high = mean_interval(values)
    n = int((~np.isnan(values)).sum())
    if n < len(values):
        detail += f"; undefined for {len(values) - n} of {len(values)}, left out"
    return Record(metric, mean, n, low, high, attribution=attribution, detail=detail)
