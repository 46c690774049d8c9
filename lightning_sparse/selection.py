"""Choosing exactly k of n by score, with ties decided the same way everywhere."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_sparse.errors import SparsityError


def lowest(scores: Tensor, count: int) -> Tensor:
    """Mark exactly ``count`` entries with the lowest scores.

    Ties are decided by position: of equal scores the earlier ones are marked first. So the same scores give the same
    answer on every device and every rank.

    Args:
        scores: shape (n,), any floating type.
        count: how many to mark; more than n marks all, less than 1 none.

    Returns:
        Boolean tensor of shape (n,) on the scores' device.

    Raises:
        SparsityError: if a score is NaN.

    Example:
        >>> lowest(torch.tensor([3.0, 1.0, 2.0, 1.0, 1.0]), 2).tolist()
        [False, True, False, True, False]
    """
    if count <= 0 or count >= len(scores):
        return torch.full(scores.shape, count > 0, dtype=torch.bool, device=scores.device)
    cut = _kth_lowest(scores, count)
    if torch.isnan(cut) or torch.isnan(scores.sum()):
        raise SparsityError("a score is NaN, so connections cannot be ranked: the training has probably diverged")
    chosen = scores < cut
    ties = (scores == cut).nonzero().squeeze(1)
    chosen[ties[: count - int(chosen.sum())]] = True
    return chosen


def highest(scores: Tensor, count: int) -> Tensor:
    """Mark exactly ``count`` entries with the highest scores; ties as in :func:`lowest`.

    Example:
        >>> highest(torch.tensor([3.0, 1.0, 2.0, 3.0, 3.0]), 2).tolist()
        [True, False, False, True, False]
    """
    return lowest(-scores, count)


def _kth_lowest(scores: Tensor, count: int) -> Tensor:
    if scores.device.type == "cpu":
        # numpy's partition takes a tenth of the time of torch.kthvalue on a CPU.
        values = scores.detach().float().numpy().copy() if scores.dtype != torch.float64 else scores.numpy().copy()
        values.partition(count - 1)
        return torch.tensor(values[count - 1], dtype=scores.dtype)
    return torch.kthvalue(scores, count).values
