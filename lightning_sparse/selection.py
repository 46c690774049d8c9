"""Choosing exactly k of n by score, with ties decided the same way everywhere.

One algorithm for every device: a sample of the scores brackets the cut, and only what lies inside the bracket is ordered.
How many lie on either side of it is counted, so that an unlucky sample costs a second look and never the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isnan, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_sparse.errors import SparsityError

# Flat: numpy's on a CPU, whose comparisons take a fifth of the time of torch's there; torch's on any other device.
Array = Any
_SAMPLE = 1 << 17


def lowest(scores: Tensor, count: int, among: Tensor | None = None) -> Tensor:
    """Mark exactly ``count`` entries with the lowest scores.

    Ties are decided by position: of equal scores the earlier ones (in row-major order) are marked first. So the same
    scores give the same answer on every device and every rank.

    Args:
        scores: any shape, any floating type.
        count: how many to mark; more than there are candidates marks all, less than 1 none.
        among: boolean mask of the candidates, of the scores' shape; None makes every entry one.

    Returns:
        Boolean tensor of the scores' shape.

    Raises:
        SparsityError: if a score is NaN.

    Example:
        >>> lowest(torch.tensor([3.0, 1.0, 2.0, 1.0, 1.0]), 2).tolist()
        [False, True, False, True, False]
        >>> lowest(torch.tensor([3.0, 1.0, 2.0]), 1, among=torch.tensor([True, False, True])).tolist()
        [False, False, True]
    """
    return extremes([scores], count, [among], from_above=False)[0]


def highest(scores: Tensor, count: int, among: Tensor | None = None) -> Tensor:
    """Mark exactly ``count`` entries with the highest scores; ties as in :func:`lowest`.

    Example:
        >>> highest(torch.tensor([3.0, 1.0, 2.0, 3.0, 3.0]), 2).tolist()
        [True, False, False, True, False]
    """
    return extremes([scores], count, [among], from_above=True)[0]


def extremes(scores: Sequence[Tensor], count: int, among: Sequence[Tensor | None], *, from_above: bool) -> list[Tensor]:
    """Rank several tensors as one; like :func:`lowest` and :func:`highest`, ties in the order of the tensors.

    Example:
        >>> marks = extremes([torch.tensor([1.0, 5.0, 2.0]), torch.tensor([2.0, 0.0])], 3, [None, None], from_above=False)
        >>> [mark.tolist() for mark in marks]
        [[True, False, True], [False, True]]
    """
    if count <= 0:
        return [torch.zeros_like(score, dtype=torch.bool) for score in scores]
    wide = torch.float64 if any(score.dtype == torch.float64 for score in scores) else torch.float32
    values = [_plain(score.detach().to(wide)) for score in scores]
    allowed = [None if mask is None else _plain(mask) for mask in among]
    marks = _mark(values, allowed, count, -1 if from_above else 1)
    return [torch.as_tensor(mark).view(score.shape) for mark, score in zip(marks, scores, strict=True)]


def marked(mask: Tensor) -> int:
    """How many entries of a boolean tensor are True."""
    return _count(_plain(mask))


def is_empty(mask: Tensor) -> bool:
    """Whether a boolean tensor marks nothing."""
    return not bool(_plain(mask).any())


@dataclass
class _Look:
    """One tensor under a bracket: what is below it for sure, and positions and scores of what is inside."""

    below: Array
    number: int
    positions: Any
    inside: Any


def _mark(values: list[Array], allowed: list[Array], count: int, sign: int) -> list[Array]:
    """Mark the ``count`` lowest of ``sign`` times the values."""
    low, high = _bracket(values, allowed, count, sign)
    while True:
        looks = [_look(value, mask, low, high, sign) for value, mask in zip(values, allowed, strict=True)]
        missing = count - sum(look.number for look in looks)
        pool = np.concatenate([look.inside for look in looks])
        if missing <= 0:
            low, high = -inf, low
        elif missing > len(pool) and high < inf:
            low, high = high, inf
        else:
            break
    missing = min(missing, len(pool))
    if missing:
        pool.partition(missing - 1)
        cut = pool[missing - 1]
        missing -= int(np.count_nonzero(pool < cut))
        for look in looks:
            ties = look.positions[look.inside == cut][:missing]
            missing -= len(ties)
            look.below[look.positions[look.inside < cut]] = True
            look.below[ties] = True
    return [look.below for look in looks]


def _bracket(values: list[Array], allowed: list[Array], count: int, sign: int) -> tuple[float, float]:
    """Two scores that the cut probably lies between: three standard deviations of its place in a sample."""
    size = sum(len(value) for value in values)
    stride = size // _SAMPLE | 1  # odd, so as not to walk down the columns of a layer
    if stride == 1:
        return -inf, inf
    strided = [value[::stride] for value in values]
    masks = [None if mask is None else mask[::stride] for mask in allowed]
    sample = sign * np.concatenate(
        [_host(v if mask is None else v[mask]) for v, mask in zip(strided, masks, strict=True)]
    )
    sample.sort()
    middle = count / stride
    margin = 3 * sqrt(middle * max(0.0, 1 - count / size)) + 1
    low, high = int(middle - margin), int(middle + margin)
    return float(sample[low]) if 0 <= low < len(sample) else -inf, float(sample[high]) if high < len(sample) else inf


def _look(values: Array, allowed: Array, low: float, high: float, sign: int) -> _Look:
    if isnan(values.max()):
        raise SparsityError("a score is NaN, so connections cannot be ranked: the training has probably diverged")
    below = values < low if sign > 0 else values > -low
    inside = values <= high if sign > 0 else values >= -high
    positions = np.flatnonzero(_host(inside ^ below))
    if allowed is not None:
        below &= allowed
        positions = positions[_host(allowed[positions])]
    return _Look(below, _count(below), positions, sign * _host(values[positions]))


def _plain(tensor: Tensor) -> Array:
    flat = tensor.reshape(-1)
    return flat.numpy() if flat.device.type == "cpu" else flat


def _host(array: Array) -> Any:
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


def _count(mask: Array) -> int:
    return int(np.count_nonzero(mask)) if isinstance(mask, np.ndarray) else int(mask.count_nonzero())
