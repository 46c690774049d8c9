"""Optional libraries, imported when first needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lightning_sparse.errors import SparsityError

EXTRAS = {
    "captum": "measure",
    "scipy": "measure",
    "torchattacks": "measure",
    "torchvision": "measure",
    "wandb": "wandb",
    "matplotlib": "app",
    "sklearn": "app",
}
"""The extra that brings each library: the smallest, where several do."""


def need(module: str) -> Any:
    """Import a module of an optional library, or say how to install it.

    Args:
        module: dotted name, such as ``"captum.attr"``, of a library in :data:`EXTRAS`.

    Returns:
        The module.

    Raises:
        SparsityError: if it is not installed.

    Example:
        >>> need("scipy.special").__name__
        'scipy.special'
    """
    library = module.partition(".")[0]
    extra = EXTRAS[library]
    try:
        return import_module(module)
    except ImportError as error:
        raise SparsityError(
            f'{library} could not be imported ({error}): write pip install "lightning-sparse[{extra}]"'
        ) from error
