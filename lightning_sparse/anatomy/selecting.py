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
            if _selects(each):
                found[id(each)] = each
    return list(found.values())


def hooks_that_select(model: nn.Module) -> bool:
    """Whether a hook selects, which a model can do without."""
    return any(not isinstance(each, nn.Module) for each in selecting(model))


def _selects(each: Any) -> bool:
    return isinstance(getattr(each, "straight_through", None), bool)


@contextmanager
def without_selection(model: nn.Module) -> Iterator[None]:
    """Inside, the hooks that select do not run: another function, of the same weights. Modules that select do run.

    Example:
        >>> import torch
        >>> layer = nn.Linear(2, 2)
        >>> def winner(module, inputs):
        ...     return (inputs[0] * 0,)
        >>> winner.straight_through = False
        >>> handle = layer.register_forward_pre_hook(winner)
        >>> x, zero = torch.ones(1, 2), torch.zeros(1, 2)
        >>> with without_selection(layer):
        ...     print(torch.equal(layer(x), layer(zero)))
        False
        >>> torch.equal(layer(x), layer(zero))
        True
    """
    registered = [hooks for m in model.modules() for hooks in (m._forward_pre_hooks, m._forward_hooks)]
    held = [(hooks, dict(hooks)) for hooks in registered if any(map(_selects, hooks.values()))]
    try:
        for hooks, all_of_them in held:
            for key, hook in all_of_them.items():
                if _selects(hook):
                    del hooks[key]
        yield
    finally:
        for hooks, all_of_them in held:
            hooks.clear()
            hooks.update(all_of_them)


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
