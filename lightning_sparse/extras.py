"""The libraries of the ``measure`` extra, imported when first needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lightning_sparse.errors import SparsityError


def need(module: str) -> Any:
    """Import a module of the ``measure`` extra, or say how to install it.

    Args:
        module: dotted name, such as ``"captum.attr"``.

    Returns:
        The module.

    Raises:
        SparsityError: if it is not installed.

    Example:
        >>> need("scipy.special").__name__
        'scipy.special'
    """
    try:
        return import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise SparsityError(
            f'{library} could not be imported ({error}): write pip install "lightning-sparse[measure]"'
        ) from error
