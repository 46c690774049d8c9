"""Whether the connections of a unit lie side by side, more than each pixel's popularity makes them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Form = Callable[[Tensor], Tensor]


def locality(energy: Tensor) -> float:
    """How much likelier two connections of one unit are neighbours than if units were shuffled within each pixel.

    With p the energy of a unit over the sum of it, the share of its pairs of connections that are neighbours (of the eight
    around a pixel) is the sum of p_i p_j over neighbours, over that of all pairs of different pixels, both added up over
    units. The null keeps what every pixel gets, so that a dark border, or a centre that all units read, is not taken for
    locality. Its expectation is known: the same share of the mean of p over units.

    Args:
        energy: (units, height, width), not negative: squared weights, or a mask. Units with fewer than two connections have
            no pairs, and weigh nothing; those of one weight that outweighs all others weigh little.

    Returns:
        1 for connections at random places, and for units that are all alike; how high it can get depends on how many
        connections a unit has. NaN without two connections in one unit.

    Example:
        >>> patches = torch.zeros(4, 4, 4)  # four units, each of which reads one quadrant of 4x4 pixels
        >>> for unit, (top, left) in enumerate([(0, 0), (0, 2), (2, 0), (2, 2)]):
        ...     patches[unit, top : top + 2, left : left + 2] = 1
        >>> round(locality(patches), 4)  # all pairs are neighbours; of 16 * 15 pairs of pixels 84 are
        2.8571
    """
    return _over_null(energy, _neighbours)


def radius(energy: Tensor) -> float:
    """The root mean square distance of two connections of one unit over its null, as in :func:`locality`; below 1 is local.

    Example:
        >>> rows = torch.eye(4).unsqueeze(2).repeat(1, 1, 4)  # each unit reads a row: mean squared distance 10 / 3
        >>> round(radius(rows) ** 2, 4)  # of all pairs of 4x4 pixels: 16 / 3
        0.625
    """
    return math.sqrt(_over_null(energy, _squared_distances))


def _over_null(energy: Tensor, form: Form) -> float:
    energy = energy.double()
    shares = energy[energy.sum((1, 2)) > 0]
    shares = shares / shares.sum((1, 2), keepdim=True)
    found, pairs = form(shares).sum(), _pairs(shares).sum()
    mean = shares.mean(0, keepdim=True)
    null = form(mean) / _pairs(mean)
    return float(found / pairs / null) if len(shares) and pairs > 1e-12 else math.nan


def _pairs(shares: Tensor) -> Tensor:
    """Sum of p_i p_j over different pixels, for each unit."""
    return shares.sum((1, 2)).square() - shares.square().sum((1, 2))


def _neighbours(shares: Tensor) -> Tensor:
    """Sum of p_i p_j over pixels and their eight neighbours, for each unit."""
    around = F.avg_pool2d(shares.unsqueeze(1), 3, stride=1, padding=1, divisor_override=1).squeeze(1) - shares
    return (shares * around).sum((1, 2))


def _squared_distances(shares: Tensor) -> Tensor:
    """Sum of p_i p_j times the squared distance of their pixels, for each unit."""
    _, height, width = shares.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([rows, columns]).double().flatten(1)  # (2, pixels)
    flat = shares.flatten(1)
    about = flat @ places.square().sum(0)
    return 2 * (flat.sum(1) * about - (flat @ places.T).square().sum(1))
