"""The example that a network is exported with, noise like it, and copies of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse.errors import SparsityError


def as_arguments(example: Any) -> tuple[Tensor, ...]:
    """Return an example as the arguments of one call, or raise a SparsityError unless it is a batch.

    Example:
        >>> [argument.shape for argument in as_arguments(torch.zeros(8, 3))]
        [torch.Size([8, 3])]
    """
    given = example if isinstance(example, tuple) else (example,)
    for tensor in given:
        if not isinstance(tensor, Tensor) or tensor.dim() == 0 or len(tensor) == 0 or len(tensor) != len(given[0]):
            what = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise SparsityError(
                f"example={what} is not a batch: give a tensor (n, ...) with n >= 1, such as next(iter(loader))[0], or a "
                "tuple of tensors of one length"
            )
    if not given:
        raise SparsityError("example=() is empty: give a tensor (n, ...) as the model takes it")
    return given


def of_size(arguments: tuple[Tensor, ...], size: int, device: torch.device) -> tuple[Tensor, ...]:
    """Return a batch of so many examples on a device, repeated as often as needed.

    Example:
        >>> of_size((torch.arange(3),), 5, torch.device("cpu"))
        (tensor([0, 1, 2, 0, 1]),)
    """
    rows = torch.arange(size) % len(arguments[0])
    return tuple(tensor.detach()[rows.to(tensor.device)].to(device) for tensor in arguments)


def works(model: nn.Module, batch: tuple[Tensor, ...]) -> bool:
    """Whether a model can be called with a batch."""
    try:
        model(*batch)
    except Exception:  # a network that takes batches of one size only
        return False
    return True


def mapped(function: Callable[[Tensor], Tensor], values: Any) -> Any:
    """The same nested lists, tuples and mappings, with what a function makes of each tensor."""
    if isinstance(values, Tensor):
        return function(values)
    if isinstance(values, Mapping):
        return {name: mapped(function, part) for name, part in values.items()}
    if not isinstance(values, list | tuple):
        return values
    parts = [mapped(function, part) for part in values]
    return type(values)(*parts) if hasattr(values, "_fields") else type(values)(parts)


def cloned(example: Any) -> Any:
    """A copy, because a model may write into what it is given."""
    return mapped(lambda tensor: tensor.detach().clone(), example)


def random_like(example: Any) -> Any:
    """Noise of the mean and spread of the example; of numbers that are whole or infinite, another order of them."""

    def noise(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or not bool(tensor.isfinite().all()) or not tensor.numel():
            return tensor.flatten()[torch.randperm(tensor.numel(), device=tensor.device)].view_as(tensor)
        spread = tensor.std() if tensor.numel() > 1 else tensor.new_ones(())
        return tensor.mean() + (spread + 1e-3) * torch.randn_like(tensor)

    return mapped(noise, example)
