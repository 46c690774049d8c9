"""A hook of a layer that is part of a training, and of no copy of the layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Hook:
    """Calls a function; a copy, deep or pickled, calls nothing, because a copied layer is no part of the training.

    Example:
        >>> import copy
        >>> Hook(print)("a layer"), copy.copy(Hook(print))("a layer")
        a layer
        (None, None)
    """

    def __init__(self, call: Callable[..., Any] | None = None) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> None:
        """Call the function, if there is one."""
        if self._call is not None:
            self._call(*arguments)

    def __reduce__(self) -> Any:
        return Hook, ()
