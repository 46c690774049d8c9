"""Which activations of an example are kept: the rules, as functions of tensors.

Whatever changes while a network trains (a count, a threshold, a duty) is a tensor: a Python number in a hook would make
``torch.compile`` build one graph for each of its values.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MOST_SORTED = 65_536


def winners(x: Tensor, density: Tensor | float) -> Tensor:
    """Return which of the last axis are the largest: exactly ``round(density * n)`` of n, and at least one.

    Of equal values the earlier position wins. A comparison with the kth value would keep all that equal it: after a ReLU,
    often all of them.

    Args:
        x: (..., n), numbers.
        density: in (0, 1], a tensor of one number or a float.

    Returns:
        (..., n), bool.

    Example:
        >>> winners(torch.tensor([[0.0, 3.0, 0.0, 0.0, 2.0]]), 0.6)
        tensor([[ True,  True, False, False,  True]])
    """
    size = x.shape[-1]
    count = torch.as_tensor(density * size, device=x.device).round().clamp(min=1)
    order = x.sort(dim=-1, descending=True, stable=True).indices
    kept = torch.arange(size, device=x.device) < count
    return torch.zeros_like(order, dtype=torch.bool).scatter(-1, order, kept.expand_as(order))


def boosted(x: Tensor, duty: Tensor, density: Tensor | float, strength: Tensor | float) -> Tensor:
    """Multiply units that win too seldom by more (Ahmad & Scheinkman 2019): x * exp(strength (density - duty)).

    It decides who wins; what is sent on is x itself.

    Args:
        x: numbers.
        duty: how often each unit has won, in [0, 1], of a shape that x can be multiplied by.
        density: how often it should.
        strength: 0 is no boost.

    Example:
        >>> boosted(torch.ones(2), torch.tensor([0.5, 0.0]), 0.5, 2.0)
        tensor([1.0000, 2.7183])
    """
    return x * torch.exp(strength * (density - duty))


def running_mean(mean: Tensor, total: Tensor, count: Tensor, seen: Tensor, period: int) -> Tensor:
    """Bring a mean over the latest examples up to date: (mean (T - B) + total) / T, where T = min(period, seen + B).

    With more new examples than the period is long, T - B would be negative and the mean diverge: T is then B, and the mean
    that of the new ones.

    Args:
        mean: before.
        total: sum over the new examples, like ``mean``.
        count: B, how many new ones there are; 0 leaves the mean as it is.
        seen: how many there were before.
        period: over how many examples it runs, at least 1.

    Example:
        >>> half, eight, many = torch.tensor(0.5), torch.tensor(8.0), torch.tensor(100.0)
        >>> running_mean(half, eight, eight, many, period=16), running_mean(half, eight, eight, many, period=2)
        (tensor(0.7500), tensor(1.))
    """
    over = torch.maximum((seen + count).clamp(max=period), count).clamp(min=1)
    return (mean * (over - count) + total) / over


def magnitude_at(x: Tensor, density: Tensor | float) -> Tensor:
    """Find the magnitude above which a share ``density`` of x lies (TEAL: Liu et al. 2024, arXiv 2408.14690).

    Of more than 65,536 numbers an evenly spaced part is looked at.

    Returns:
        One number: the largest of those that are to be dropped, 0 if none is.

    Example:
        >>> magnitude_at(torch.tensor([0.1, -0.4, 0.2, 0.3]), 0.5)
        tensor(0.2000)
    """
    sizes = x.abs().flatten()
    sizes = sizes[:: -(-len(sizes) // _MOST_SORTED)].float().sort().values
    dropped = torch.as_tensor((1 - density) * len(sizes), device=x.device).round().long()
    return torch.cat([sizes.new_zeros(1), sizes]).index_select(0, dropped.view(1)).squeeze(0)
