"""What passes some activations on and drops the others: the hooks and modules of a model that say so of themselves.

A selection jumps with the input, and its backward pass sees the winners alone, so that attacks which follow gradients may
find nothing where there is something. Whoever selects has an attribute ``straight_through``, False: if it is True, the
forward pass stays as it is, and the backward pass goes on as if nothing had been dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


def selecting(model: nn.Module) -> list[Any]:
    """List the modules of a model, and the hooks before and after their forward passes, that select.

    Example:
        >>> class Winner(nn.Module):
        ...     straight_through = False
        >>> len(selecting(nn.Sequential(nn.Linear(2, 2), Winner())))
        1
    """
    found: dict[int, Any] = {}
    for module in model.modules():
        for each in (module, *module._forward_pre_hooks.values(), *module._forward_hooks.values()):
            if isinstance(getattr(each, "straight_through", None), bool):
                found[id(each)] = each
    return list(found.values())


@contextmanager
def straight_through(model: nn.Module) -> Iterator[None]:
    """Inside, gradients go straight through whatever selects (Bengio et al. 2013, arXiv 1308.3432).

    Example:
        >>> class Winner(nn.Module):
        ...     straight_through = False
        >>> winner = Winner()
        >>> with straight_through(winner):
        ...     print(winner.straight_through)
        True
        >>> winner.straight_through
        False
    """
    found = [(each, each.straight_through) for each in selecting(model)]
    try:
        for each, _ in found:
            each.straight_through = True
        yield
    finally:
        for each, before in found:
            each.straight_through = before
