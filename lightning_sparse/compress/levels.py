"""The few values that the weights of a layer may take: an even grid, or a codebook."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_sparse.extras import need

Halves = npt.NDArray[np.float16]

MOST = 256
"""Levels of a layer: a byte for each weight."""

_EXACT = 32  # entries up to which k-means is solved exactly; above that it takes minutes
_SAMPLE = 2**18  # values that a codebook is fitted to, at most: evenly spaced among the sorted ones
_CLIPS = np.linspace(0.25, 1.0, 31)  # shares of the range that are tried


@dataclass(frozen=True)
class Levels:
    """Values in ascending order, for all weights of a layer or for each row of its matrix.

    Attributes:
        entries: (groups, K), float32; one group for the whole layer, or one for each row.
        said: what a decoder is told: ``"ends"`` (the first and the last of an even grid), ``"end"`` (the last of a grid that
            is symmetric about zero) or ``"entries"`` (a codebook); each number is exact in float16.
    """

    entries: Tensor
    said: str

    @property
    def count(self) -> int:
        """K, the number of values in a group."""
        return self.entries.shape[1]

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
        """What is written down, (groups, 1, 2 or K)."""
        entries = self.entries.cpu().numpy().astype(np.float16)
        return {"ends": entries[:, [0, -1]], "end": entries[:, -1:], "entries": entries}[self.said]

    def to(self, device: torch.device) -> Levels:
        """The same on another device."""
        return Levels(self.entries.to(device), self.said)


def levels_from(numbers: Halves, said: str, count: int) -> Levels:
    """Undo :meth:`Levels.numbers`, given how many levels there are.

    Example:
        >>> levels_from(np.float16([[0.5]]), "end", 3).entries
        tensor([[-0.5000,  0.0000,  0.5000]])
    """
    exact = numbers.astype(np.float64)
    if said != "entries":
        low, high = (-exact[:, :1] if said == "end" else exact[:, :1]), exact[:, -1:]
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
        weights, lives = weights.reshape(1, -1), lives.reshape(1, -1)
    some = lives.any(axis=1)
    low = np.where(some, np.where(lives, weights, np.inf).min(axis=1), 0.0)
    high = np.where(some, np.where(lives, weights, -np.inf).max(axis=1), 0.0)
    if symmetric:
        high = np.maximum(-low, high)
        low = -high
    middle, half = (low + high) / 2, (high - low) / 2
    weights = np.where(lives, weights, middle[:, None])
    best, ends = np.full(len(weights), np.inf), np.stack([low, high], axis=1)
    for clip in _CLIPS:
        tried = np.stack([middle - clip * half, middle + clip * half], axis=1)
        step = np.maximum((tried[:, 1] - tried[:, 0]) / (count - 1), 1e-30)[:, None]
        nearest = np.rint((weights - tried[:, :1]) / step).clip(0, count - 1)
        error = ((tried[:, :1] + nearest * step - weights) ** 2 * lives).sum(axis=1)
        ends[error < best] = tried[error < best]
        best = np.minimum(best, error)
    written = np.clip(ends, -65504, 65504).astype(np.float16)
    return levels_from(written[:, 1:] if symmetric else written, "end" if symmetric else "ends", count)


def codebook(values: Tensor, count: int) -> Levels:
    """The ``count`` values with the least squared error to ``values`` (k-means in one dimension), or fewer if they repeat.

    Exact up to 32 entries (kmeans1d; Groenlund et al. 2017, arXiv 1701.07204), Lloyd's algorithm above (scikit-learn).

    Example:
        >>> codebook(torch.tensor([0.0, 0.25, 4.0, 4.5]), 2).entries
        tensor([[0.1250, 4.2500]])
    """
    numbers = np.sort(values.detach().to("cpu", torch.float64).numpy().reshape(-1))
    if len(numbers) > _SAMPLE:
        numbers = numbers[np.linspace(0, len(numbers) - 1, _SAMPLE).astype(np.int64)]
    if len(distinct := np.unique(numbers)) <= count:
        centres = distinct if len(distinct) else np.zeros(1)
    elif count <= _EXACT:
        centres = np.asarray(need("kmeans1d").cluster(numbers, count).centroids)
    else:
        start = np.linspace(numbers[0], numbers[-1], count)[:, None]
        found = need("sklearn.cluster").KMeans(count, init=start, n_init=1, max_iter=50).fit(numbers[:, None])
        centres = found.cluster_centers_[:, 0]
    return levels_from(np.unique(centres.clip(-65504, 65504).astype(np.float16))[None], "entries", 0)
