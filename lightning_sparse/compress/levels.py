"""The few values that the weights of a layer may take: an even grid, or a codebook."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_sparse.extras import need

Floats = npt.NDArray[np.float64]
Halves = npt.NDArray[np.float16]

MOST = 256
"""Levels of a layer: a byte for each weight."""

_EXACT = 32  # entries up to which k-means is solved exactly; above that it takes minutes
_SAMPLE = 2**18  # values that a codebook is fitted to, at most: evenly spaced among the sorted ones
_LARGEST = 65504 * 2.0**112  # that float32 holds when it has been rounded
_CLIPS = np.geomspace(0.08, 1.0, 49)  # shares of the range that are tried, on both sides of the mean


@dataclass(frozen=True)
class Levels:
    """Values in ascending order, for all weights of a layer or for each row of its matrix.

    Attributes:
        entries: (groups, K), float32; one group for the whole layer, or one for each row.
        said: what a decoder is told: ``"ends"`` (the first and the last of an even grid), ``"end"`` (the last of a grid that
            is symmetric about zero) or ``"entries"`` (a codebook); each number is exact in float16, times ``2**exponent``.
    """

    entries: Tensor
    said: str

    @property
    def count(self) -> int:
        """K, the number of values in a group."""
        return self.entries.shape[1]

    @property
    def exponent(self) -> int:
        """Of the power of two that all numbers are multiplied by: 0, except where float16 would lose small or large ones."""
        return exponent_of(float(self.entries.abs().max()))

    def nearest(self, matrix: Tensor) -> Tensor:
        """The number of the nearest level of each weight (rows, columns), int64; the lower one of two.

        Example:
            >>> levels_from(np.float16([[-1.0, 1.0]]), "ends", 3).nearest(torch.tensor([[-2.0, 0.4, 0.6]]))
            tensor([[0, 1, 2]])
        """
        borders = (self.entries[:, 1:] + self.entries[:, :-1]) / 2
        if len(borders) == 1:
            return torch.bucketize(matrix.contiguous(), borders[0])
        return torch.searchsorted(borders.contiguous(), matrix.contiguous())

    def values(self, numbers: Tensor) -> Tensor:
        """The values of levels (rows, columns)."""
        if len(self.entries) == 1:
            return self.entries[0][numbers]
        return self.entries.gather(1, numbers)

    def round(self, matrix: Tensor) -> Tensor:
        """Each weight (rows, columns) at its nearest level."""
        return self.values(self.nearest(matrix)).to(matrix.dtype)

    def numbers(self) -> Halves:
        """What is written down beside the exponent, (groups, 1, 2 or K)."""
        entries: Halves = np.ldexp(self.entries.cpu().double().numpy(), -self.exponent).astype(np.float16)
        told: dict[str, Halves] = {"ends": entries[:, [0, -1]], "end": entries[:, -1:], "entries": entries}
        return told[self.said]

    def to(self, device: torch.device) -> Levels:
        """The same on another device."""
        return Levels(self.entries.to(device), self.said)


def levels_from(numbers: npt.NDArray[np.floating], said: str, count: int) -> Levels:
    """Undo :meth:`Levels.numbers`, given how many levels there are; the numbers are multiplied by their power of two.

    Example:
        >>> levels_from(np.float16([[0.5]]), "end", 3).entries
        tensor([[-0.5000,  0.0000,  0.5000]])
    """
    exact = numbers.astype(np.float64)
    if said != "entries":
        low, high = (-exact[:, -1:] if said == "end" else exact[:, :1]), exact[:, -1:]
        exact = low + np.arange(count) * ((high - low) / max(1, count - 1))
        exact[:, -1:] = high
    return Levels(torch.from_numpy(exact.astype(np.float32)), said)


def even_grid(matrix: Tensor, alive: Tensor, count: int, *, per_row: bool = False, symmetric: bool = False) -> Levels:
    """The even grid of ``count`` levels with the least squared error, of those that take some share of the weights' range.

    Args:
        matrix: weights (rows, columns).
        alive: which of them live; the others are not looked at.
        count: of levels, from 2 to 256.
        per_row: a grid for each row.
        symmetric: about zero: an odd ``count`` has a level at zero.

    Example:
        >>> even_grid(torch.tensor([[0.0, 1.0, 2.0, 3.0]]), torch.ones(1, 4, dtype=torch.bool), 4).entries
        tensor([[0., 1., 2., 3.]])
    """
    weights, lives = matrix.detach().to("cpu", torch.float64).numpy(), alive.cpu().numpy().astype(bool)
    if not per_row:
        weights = _thinned(np.sort(weights[lives]), 2**14)[None] if lives.any() else np.zeros((1, 1))
        lives = np.ones_like(weights, dtype=bool)
    some = lives.any(axis=1)
    low = np.where(some, np.where(lives, weights, np.inf).min(axis=1), 0.0)
    high = np.where(some, np.where(lives, weights, -np.inf).max(axis=1), 0.0)
    if symmetric:
        high = np.maximum(-low, high)
        low = -high
    middle = np.zeros(len(low)) if symmetric else (weights * lives).sum(axis=1) / np.maximum(lives.sum(axis=1), 1)
    weights = np.where(lives, weights, middle[:, None])
    best, ends = np.full(len(weights), np.inf), np.stack([low, high], axis=1)
    for clip in _CLIPS:
        tried = np.stack([middle + clip * (low - middle), middle + clip * (high - middle)], axis=1)
        step = np.maximum((tried[:, 1] - tried[:, 0]) / (count - 1), 2e-38)[:, None]
        nearest = np.rint((weights - tried[:, :1]) / step).clip(0, count - 1)
        error = ((tried[:, :1] + nearest * step - weights) ** 2 * lives).sum(axis=1)
        ends[error < best] = tried[error < best]
        best = np.minimum(best, error)
    return levels_from(in_halves(ends), "end" if symmetric else "ends", count)


def codebook(values: Tensor, count: int) -> Levels:
    """The ``count`` values with the least squared error to ``values`` (k-means in one dimension), or fewer if they repeat.

    Exact up to 32 entries (kmeans1d; Groenlund et al. 2017, arXiv 1701.07204), Lloyd's algorithm above (scikit-learn).

    Example:
        >>> codebook(torch.tensor([0.0, 0.25, 4.0, 4.5]), 2).entries
        tensor([[0.1250, 4.2500]])
    """
    numbers = np.sort(values.detach().to("cpu", torch.float64).numpy().reshape(-1))
    numbers = _thinned(numbers, _SAMPLE)
    if len(distinct := np.unique(numbers)) <= count:
        centres = distinct if len(distinct) else np.zeros(1)
    elif count <= _EXACT:
        centres = np.asarray(k_means(count).cluster(numbers, count).centroids)
    else:
        start = np.linspace(numbers[0], numbers[-1], count)[:, None]
        found = k_means(count).KMeans(count, init=start, n_init=1, max_iter=50).fit(numbers[:, None])
        centres = found.cluster_centers_[:, 0]
    return levels_from(np.unique(in_halves(centres))[None], "entries", 0)


def k_means(count: int) -> Any:
    """The optional module that finds a codebook of ``count`` values.

    Example:
        >>> k_means(8).__name__, k_means(64).__name__
        ('kmeans1d', 'sklearn.cluster')
    """
    return need("kmeans1d") if count <= _EXACT else need("sklearn.cluster")


def exponent_of(largest: float) -> int:
    """Of the power of two by which numbers up to ``largest`` are kept in float16.

    0 from 2**-10 to 65504, where float16 tells levels well apart; else that which brings the largest into [1, 2). It is the
    same before and after they are rounded.

    Example:
        >>> exponent_of(0.3), exponent_of(3 * 2.0**-20), exponent_of(1e6)
        (0, -19, 19)
    """
    mantissa, power = np.frexp(largest)
    rounded = float(np.ldexp(np.rint(mantissa * 2**11), power - 11))  # as float16 does
    if not rounded or 2**-10 <= rounded <= 65504:
        return 0
    return max(int(np.frexp(rounded)[1]) - 1, -100)  # below that float32 would not be exact


def in_halves(numbers: Floats) -> Floats:
    """Numbers as they are written down: each exact in float16, times one power of two.

    Example:
        >>> in_halves(np.array([0.1, 1.0])).tolist(), in_halves(np.array([1e-9])).tolist() == [1e-9]
        ([0.0999755859375, 1.0], False)
        >>> bool(abs(in_halves(np.array([1e-9])) - 1e-9) < 1e-12)
        True
    """
    numbers = np.clip(numbers, -_LARGEST, _LARGEST)
    exponent = exponent_of(np.abs(numbers).max(initial=0.0))
    return np.ldexp(np.ldexp(numbers, -exponent).astype(np.float16).astype(np.float64), exponent)


def _thinned(ordered: Floats, most: int) -> Floats:
    """At most so many of sorted numbers, evenly spaced, the first and the last among them."""
    return ordered if len(ordered) <= most else ordered[np.linspace(0, len(ordered) - 1, most).astype(np.int64)]
