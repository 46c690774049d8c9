"""The example that a network is exported with, and copies of the network to try it on."""

from __future__ import annotations

import copy
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


def copied(model: nn.Module) -> nn.Module:
    """A copy in eval mode, without the Trainer that a LightningModule holds."""
    trainer = getattr(model, "_trainer", None)
    try:
        return copy.deepcopy(model, {} if trainer is None else {id(trainer): None}).eval()
    except Exception as error:
        raise SparsityError(
            f"model={type(model).__name__} cannot be copied ({in_short(error)}): give the network alone, such as module.net, "
            "after torch.nn.utils.prune.remove(layer, 'weight') where that module has pruned"
        ) from error


def in_short(error: Exception, most: int = 300) -> str:
    """The words of an error, on one line.

    Example:
        >>> in_short(ValueError("too    long"))
        'too long'
    """
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= most else f"{words[:most]}..."
