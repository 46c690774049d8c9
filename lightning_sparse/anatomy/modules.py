"""Whether something is a module or a mapping of tensors at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lightning_sparse.errors import SparsityError


def check_module(model: object, argument: str = "model") -> None:
    """Raise a SparsityError unless ``model`` is a module.

    Example:
        >>> check_module(nn.Linear)
        Traceback (most recent call last):
        lightning_sparse.SparsityError: model=<class 'torch.nn.modules.linear.Linear'> is not a torch.nn.Module: give an object such as torch.nn.Linear(2, 3)
    """  # noqa: E501
    if not isinstance(model, nn.Module):
        raise SparsityError(
            f"{argument}={model!r} is not a torch.nn.Module: give an object such as torch.nn.Linear(2, 3)"
        )


def check_tensors(argument: str, tensors: Any) -> None:
    """Raise a SparsityError unless ``tensors`` holds a tensor for each of its names, and at least one.

    Example:
        >>> check_tensors("masks", {"a": True})
        Traceback (most recent call last):
        lightning_sparse.SparsityError: masks={'a': True} is not a mapping from names to tensors: write one such as {'weight': tensor}
    """  # noqa: E501
    named = isinstance(tensors, Mapping) and all(isinstance(name, str) for name in tensors)
    if not named or not tensors or not all(isinstance(tensors[name], Tensor) for name in tensors):
        raise SparsityError(
            f"{argument}={tensors!r} is not a mapping from names to tensors: write one such as {{'weight': tensor}}"
        )
