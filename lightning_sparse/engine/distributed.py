"""What the processes that train one model together have to agree on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_sparse.engine.masks import Masks
from lightning_sparse.errors import SparsityError

T = TypeVar("T")


def is_set_up() -> bool:
    """Whether ``torch.distributed`` is set up, be it for one process."""
    return dist.is_available() and dist.is_initialized()


def _several() -> bool:
    """Whether this process is one of several that train one model."""
    return is_set_up() and dist.get_world_size() > 1


def check_same_masks(masks: Masks, scores: str) -> None:
    """Raise a SparsityError on every rank if the masks differ between ranks; every rank has to call it.

    ``scores`` names the scores that chose the masks, for the message.
    """
    if not _several():
        return
    checksums = of_all_ranks(masks.checksum())
    differing = [rank for rank, other in enumerate(checksums) if other != checksums[0]]
    if differing:
        raise SparsityError(
            f"the masks of rank {', '.join(map(str, differing))} differ from those of rank 0: the scores ({scores}) must be "
            "the same on every rank. Draw random numbers from layer.generator only, compute scores from weights and "
            "gradients (which DDP keeps equal), and give every rank the same seed"
        )


def of_all_ranks(value: T) -> list[T]:
    """What each rank has given, in the order of the ranks; every rank has to call it.

    Example:
        >>> of_all_ranks("mine")  # of one process
        ['mine']
    """
    if not _several():
        return [value]
    values = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def take_from_first(tensor: Tensor) -> Tensor:
    """The tensor of rank 0, on every rank; every rank has to call it, with one of the same type and shape."""
    if not _several():
        return tensor
    sent = tensor.contiguous().view(torch.uint8) if tensor.dtype == torch.bool else tensor.contiguous()
    dist.broadcast(sent, 0)
    return sent.view(tensor.dtype)


def average(gradients: dict[str, Tensor]) -> None:
    """Average tensors over the ranks in place; every rank has to call it, with the same names in the same order."""
    if _several():
        for gradient in gradients.values():
            dist.all_reduce(gradient)
            gradient /= dist.get_world_size()


def add_up(tensors: Sequence[Tensor]) -> None:
    """Sum tensors of one type over the ranks in place, in one message; every rank has to call it, with the same shapes."""
    if _several() and tensors:
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))
