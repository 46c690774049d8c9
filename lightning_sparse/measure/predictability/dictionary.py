"""Weights that are predicted from a few of them: which few, and how the rest follows (Denil et al. 2013, arXiv 1306.0543)."""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-3  # times the mean variance of the inputs that vary


def chosen_coordinates(covariance: Tensor, count: int) -> Tensor:
    """The inputs that say most about the others: the first pivots of their covariance's Cholesky decomposition.

    Each is the input with the largest variance that those before it leave unexplained; of equals the first. Nothing is drawn.

    Args:
        covariance: (inputs, inputs), float64, of a layer's inputs.
        count: how many, in [1, inputs].

    Returns:
        Indices (count,), int64, in the order in which they were chosen.

    Example:
        The second input says all about the first; the third is on its own.

        >>> chosen_coordinates(torch.tensor([[1.0, 2, 0], [2, 4, 0], [0, 0, 3]]).double(), 2)
        tensor([1, 2])
    """
    left = covariance.diagonal().clone()
    rows, found = covariance.new_zeros(count, len(covariance)), []
    for i in range(count):
        place = int(left.numpy().argmax())  # numpy's is the first of equals
        found.append(place)
        if left[place] > 0:
            rows[i] = (covariance[place] - rows[:i, place] @ rows[:i]) / left[place].sqrt()
        left = (left - rows[i].square()).clamp_min(0.0)
        left[found] = -1.0
    return torch.tensor(found)


def dictionary(covariance: Tensor, coordinates: Tensor) -> Tensor:
    """What to multiply the weights at a few coordinates with, to get all of a unit's weights, by kernel ridge regression.

    The covariance is the kernel: weights of inputs that vary together are taken to be alike. Those at the coordinates stay
    as they are.

    Args:
        covariance: (inputs, inputs), float64.
        coordinates: indices (count,).

    Returns:
        (count, inputs): ``weight[:, coordinates] @ dictionary`` is the predicted weight.

    Example:
        >>> dictionary(torch.tensor([[1.0, 0.5], [0.5, 1.0]]).double(), torch.tensor([0]))
        tensor([[1.0000, 0.4995]], dtype=torch.float64)
    """
    variances, few = covariance.diagonal(), covariance[coordinates]
    ridge = RIDGE * float(variances[variances > 0].mean()) if bool((variances > 0).any()) else 1.0
    identity = torch.eye(len(coordinates), dtype=covariance.dtype)
    found: Tensor = torch.linalg.solve(few[:, coordinates] + ridge * identity, few)
    found[:, coordinates] = identity
    return found
