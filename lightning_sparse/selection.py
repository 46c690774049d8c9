"""Choosing exactly k of n by score, with ties decided the same way everywhere."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_sparse.errors import SparsityError


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
    if among is None:
        among = torch.ones_like(scores, dtype=torch.bool)
    if count <= 0:
        return torch.zeros_like(among)
    if count >= int(among.count_nonzero()):
        return among.clone()
    if torch.isnan(scores.max()):
        raise SparsityError("a score is NaN, so connections cannot be ranked: the training has probably diverged")
    cut = _kth_lowest(scores.masked_fill(~among, torch.inf), count)
    chosen = (scores < cut) & among
    missing = count - int(chosen.count_nonzero())
    ties = (scores == cut) & among
    if missing < int(ties.count_nonzero()):
        kept = ties.reshape(-1).nonzero().squeeze(1)[:missing]
        ties = (
            torch.zeros(ties.numel(), dtype=torch.bool, device=ties.device).index_fill_(0, kept, True).view(ties.shape)
        )
    return chosen | ties


def highest(scores: Tensor, count: int, among: Tensor | None = None) -> Tensor:
    """Mark exactly ``count`` entries with the highest scores; ties as in :func:`lowest`.

    Example:
        >>> highest(torch.tensor([3.0, 1.0, 2.0, 3.0, 3.0]), 2).tolist()
        [True, False, False, True, False]
    """
    return lowest(-scores, count, among)


def _kth_lowest(scores: Tensor, count: int) -> Tensor:
    """The score that is ``count``-th from below; ``scores`` may be overwritten."""
    if scores.device.type == "cpu":
        # numpy's partition takes a tenth of the time of torch.kthvalue on a CPU.
        values = (scores.float() if scores.element_size() < 4 else scores).reshape(-1).numpy()
        values.partition(count - 1)
        return torch.tensor(values[count - 1], dtype=scores.dtype)
    return torch.kthvalue(scores.reshape(-1), count).values
