"""Choose exactly k of n by score, with ties decided the same way everywhere.

The algorithm is the same on every device: a sample of the scores brackets the cut, and only scores inside the bracket are
ordered. How many lie below it is counted, so an unlucky sample costs a second pass, and never a wrong answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import gcd, inf, isnan, nan, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_sparse.errors import SparsityError

# A flat array: numpy's on a CPU, where its comparisons take a fifth of the time of torch's; torch's on any other device.
Array = Any
_PIECE = 1 << 16  # entries that fit into a core's own cache, to be read several times
_JOINED = 1 << 26  # entries that are copied into one array on other devices, at most: a quarter of a GB


def lowest(scores: Tensor, count: int, among: Tensor | None = None) -> Tensor:
    """Mark the ``count`` lowest scores, of any shape and floating type, in a boolean tensor of that shape.

    Of equal scores the earlier ones (in row-major order) are marked first, so the same scores give the same answer on every
    device and every rank. A NaN raises a SparsityError.

    Only candidates are marked: those in the boolean mask ``among``, or all if it is None. A ``count`` of more than there are
    marks all of them; of less than 1, none.

    Example:
        >>> lowest(torch.tensor([3.0, 1.0, 2.0, 1.0, 1.0]), 2).tolist()
        [False, True, False, True, False]
        >>> lowest(torch.tensor([3.0, 1.0, 2.0]), 1, among=torch.tensor([True, False, True])).tolist()
        [False, False, True]
    """
    return extremes([scores], count, [among], from_above=False)[0]


def highest(scores: Tensor, count: int, among: Tensor | None = None) -> Tensor:
    """Mark the ``count`` highest scores, as :func:`lowest` does the lowest.

    Example:
        >>> highest(torch.tensor([3.0, 1.0, 2.0, 3.0, 3.0]), 2).tolist()
        [True, False, False, True, False]
    """
    return extremes([scores], count, [among], from_above=True)[0]


def extremes(scores: Sequence[Tensor], count: int, among: Sequence[Tensor | None], *, from_above: bool) -> list[Tensor]:
    """Mark the lowest or highest scores of several tensors ranked as one; of equal scores, those of earlier tensors first.

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
    groups = _groups(values)
    joined = [(_join(values[group]), _join_masks(allowed[group], values[group])) for group in groups]
    marks = _mark([value for value, _ in joined], [mask for _, mask in joined], count, -1 if from_above else 1)
    apart = [part for mark, group in zip(marks, groups, strict=True) for part in _split(mark, values[group])]
    return [torch.as_tensor(mark).view(score.shape) for mark, score in zip(apart, scores, strict=True)]


def count_true(mask: Tensor) -> int:
    """How many entries of a boolean tensor are True."""
    return _count(_plain(mask))


def counts_true(masks: Mapping[str, Tensor]) -> dict[str, int]:
    """How many entries of each boolean tensor are True; a device is waited for once, and not for each of them.

    Example:
        >>> counts_true({"a": torch.tensor([True, False]), "b": torch.ones(3, dtype=torch.bool)})
        {'a': 1, 'b': 3}
    """
    flat = [_plain(mask) for mask in masks.values()]
    if not flat or any(isinstance(mask, np.ndarray) for mask in flat):
        return dict(zip(masks, map(_count, flat), strict=True))
    counts = [mask.count_nonzero() for mask in flat]
    return dict(zip(masks, torch.stack([count.to(counts[0].device) for count in counts]).tolist(), strict=True))


@dataclass
class _Look:
    """One tensor and a bracket: what is at or below its lower end, and positions and scores of what is inside."""

    below: Array
    number: int
    positions: Any
    inside: Any


def _groups(values: list[Array]) -> list[slice]:
    """Neighbours on one device, which is then waited for once and not for each of them; on a CPU each is alone."""
    starts, size = [0], 0
    for place, value in enumerate(values):
        first, size = values[starts[-1]], size + len(value)
        alone = isinstance(first, np.ndarray) or getattr(value, "device", None) != first.device
        if place > starts[-1] and (alone or size > _JOINED):
            starts, size = [*starts, place], len(value)
    return [slice(*ends) for ends in pairwise([*starts, len(values)])]


def _join(values: list[Array]) -> Array:
    return values[0] if len(values) == 1 else torch.cat(values)


def _join_masks(allowed: list[Array], values: list[Array]) -> Array:
    if all(mask is None for mask in allowed):
        return None
    pairs = zip(allowed, values, strict=True)
    return _join([torch.ones_like(value, dtype=torch.bool) if mask is None else mask for mask, value in pairs])


def _split(mark: Array, values: list[Array]) -> Sequence[Array]:
    return [mark] if len(values) == 1 else mark.split([len(value) for value in values])


def _mark(values: list[Array], allowed: list[Array], count: int, sign: int) -> list[Array]:
    """Mark the ``count`` lowest of ``sign`` times the values."""
    low, high = _bracket(values, allowed, count, sign)
    while True:
        looks = [_look(value, mask, low, high, sign) for value, mask in zip(values, allowed, strict=True)]
        missing = count - sum(look.number for look in looks)
        pool = np.concatenate([look.inside for look in looks])
        if missing < 0:
            low, high = nan, low
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
    """Two scores that the cut probably lies between: three standard deviations to either side of its place in a sample.

    The lower may be NaN, which no score is at or below.
    """
    size = sum(len(value) for value in values)
    stride = round(size ** (1 / 3))
    while gcd(stride, 2 * 3 * 5 * 7) > 1:  # so that the sample is not one column, or one place of every 3x3 kernel
        stride += 1
    strided = [value[::stride] for value in values]
    masks = [None if mask is None else mask[::stride] for mask in allowed]
    sample = sign * np.concatenate(
        [_host(v if mask is None else v[mask]) for v, mask in zip(strided, masks, strict=True)]
    )
    sample.sort()
    middle = count / stride
    margin = 3 * sqrt(middle * max(0.0, 1 - count / size)) + 1
    first, last = int(middle - margin), int(middle + margin)
    low: Any = sample[first] if 0 <= first < len(sample) else nan
    high: Any = sample[last] if last < len(sample) else inf
    if low == high:  # many are equal, and the cut is among them
        low = np.nextafter(low, low.dtype.type(-inf))
    return float(low), float(high)


def _look(values: Array, allowed: Array, low: float, high: float, sign: int) -> _Look:
    here = isinstance(values, np.ndarray)
    below = np.empty(len(values), bool) if here else torch.empty_like(values, dtype=torch.bool)
    numeric: Any = np if here else torch
    reach = numeric.less_equal if sign > 0 else numeric.greater_equal
    number, places = 0, [np.empty(0, int)]
    step = _PIECE if here else max(1, len(values))
    for start in range(0, len(values), step):  # on other devices the whole array at once
        part = slice(start, start + step)
        piece = values[part]
        if isnan(piece.max()):
            raise SparsityError("a score is NaN, so connections cannot be ranked: the training has probably diverged")
        under = reach(piece, sign * low, out=below[part])
        upto = reach(piece, sign * high)
        if allowed is not None:
            under &= allowed[part]
            upto &= allowed[part]
        number += _count(under)
        places.append(_where(upto ^ under) + start)
    positions = np.concatenate(places)
    return _Look(below, number, positions, sign * _host(values[positions]))


def _plain(tensor: Tensor) -> Array:
    flat = tensor.reshape(-1)
    return flat.numpy() if flat.device.type == "cpu" else flat


def _where(mask: Array) -> Any:
    return np.flatnonzero(mask) if isinstance(mask, np.ndarray) else _host(mask.nonzero().squeeze(1))


def _host(array: Array) -> Any:
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


def _count(mask: Array) -> int:
    return int(np.count_nonzero(mask)) if isinstance(mask, np.ndarray) else int(mask.count_nonzero())
