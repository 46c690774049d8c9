"""Whether units of a layer share one filter at several places, more than filters of random signs seem to."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MOST_UNITS = 128  # so many are compared with each other: the cost goes with the square
SHUFFLES = 3


def sharing(filters: Tensor) -> float:
    """Mean over units of the best correlation of a filter with any other unit's, at any shift.

    Args:
        filters: (units, channels, height, width), each not all zeros, without its mean (see :func:`centred`). What a shift
            moves out of the image counts as 0.

    Returns:
        In [0, 1]: 1 where each filter is a shifted copy of another. NaN without two filters. It rises when filters have
        fewer connections, whatever they are, and is to be held against :func:`sharing_by_chance`.

    Example:
        >>> filters = torch.zeros(2, 1, 4, 4)
        >>> filters[0, 0, 0, :2] = filters[1, 0, 2, 1:3] = torch.tensor([1.0, -1.0])
        >>> round(sharing(filters), 4)
        1.0
    """
    if len(filters) < 2:
        return math.nan
    units, _, height, width = filters.shape
    filters = filters / filters.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    size = (2 * height - 1, 2 * width - 1)
    waves = torch.fft.rfft2(filters.float(), s=size)
    best = torch.full((units, units), -1.0)
    for unit in range(units - 1):
        product = (waves[unit].conj() * waves[unit + 1 :]).sum(1)
        best[unit, unit + 1 :] = torch.fft.irfft2(product, s=size).amax((1, 2))
    return float(torch.maximum(best, best.T).amax(1).mean())


def sharing_by_chance(filters: Tensor, generator: torch.Generator) -> float:
    """The same of filters whose signs are shuffled, which keeps where every unit looks and how much; a mean of three."""
    signs = (2 * torch.randint(0, 2, (SHUFFLES, *filters.shape), generator=generator) - 1).to(filters.dtype)
    return sum(sharing(filters * drawn) for drawn in signs) / SHUFFLES


def centred(filters: Tensor, living: Tensor) -> Tensor:
    """Filters less the mean of their living weights; those that are constant, or have one connection, are left out.

    A constant filter is like any other at any shift, which is no sharing. More than 128 filters are thinned out evenly.

    Example:
        >>> filters = torch.tensor([[3.0, 3.0], [1.0, 0.0], [4.0, 2.0]]).view(3, 1, 1, 2)
        >>> centred(filters, filters != 0).flatten(1).tolist()
        [[1.0, -1.0]]
    """
    counts = living.flatten(1).sum(1).clamp_min(1).view(-1, 1, 1, 1)
    without = (filters - filters.sum((1, 2, 3), keepdim=True) / counts) * living
    spread, whole = (tensor.flatten(1).norm(dim=1) for tensor in (without, filters))
    kept = without[spread > 1e-6 * whole]
    return kept[torch.linspace(0, len(kept) - 1, MOST_UNITS).long()] if len(kept) > MOST_UNITS else kept
