"""Whether a user's own function can be called with what the engine calls it with."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from lightning_sparse.errors import SparsityError


def check_takes(argument: str, function: Callable[..., Any], *names: str, made: bool = False) -> None:
    """Raise a SparsityError if a function cannot take arguments of these names, by position.

    Args:
        argument: what the function was given as.
        function: a function or an object that can be called; one whose signature Python does not know passes.
        names: what it is called with.
        made: whether of a class an object is made, without arguments, and that one called.

    Example:
        >>> check_takes("drop", lambda layer: layer.weight, "layer")
        >>> check_takes("drop", lambda: 1, "layer")
        Traceback (most recent call last):
        lightning_sparse.SparsityError: drop=<lambda> cannot be called with (layer): write a function that takes these
        >>> check_takes("loss_fn", dict, "model", "batch")
        Traceback (most recent call last):
        lightning_sparse.SparsityError: loss_fn=dict is a class, which cannot be called with (model, batch) as it is: write a function that takes these, or loss_fn=dict(...) if its objects can be called
    """  # noqa: E501
    what = f"({', '.join(names)})"
    if not isinstance(function, type):
        if not _takes(function, *names):
            name = getattr(function, "__qualname__", type(function).__qualname__)
            raise SparsityError(f"{argument}={name} cannot be called with {what}: write a function that takes these")
        return
    call = next((vars(kind)["__call__"] for kind in function.__mro__ if "__call__" in vars(kind)), None)
    own = () if isinstance(call, staticmethod) else ("self",)
    if not (made and call is not None and _takes(function) and _takes(call, *own, *names)):
        name = function.__qualname__
        raise SparsityError(
            f"{argument}={name} is a class, which cannot be called with {what} as it is: write a function that takes these, "
            f"or {argument}={name}(...) if its objects can be called"
        )


def _takes(function: Callable[..., Any], *arguments: str) -> bool:
    try:
        # A wrapper's own signature: what it wraps may take something else.
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):  # many functions written in C have none
        return True
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True
