"""Data held on a GPU: a batch is then one look-up there, and nothing waits for a loader."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from lightning_sparse.data.datasets import Batched, OnDisk

_SHARE = 0.1  # of a GPU's free memory, for each split


def on_device(held: Batched, device: torch.device) -> Batched:
    """Return a data set whose tensors are copies on a device, where it gives its batches.

    Images that stay in their files stay where they are.

    Example:
        >>> from lightning_sparse.data.datasets import InMemory
        >>> images = InMemory(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([3, 7]), 255.0)
        >>> on_device(images, torch.device("cpu"))[[1]][1]
        tensor([7])
    """
    if isinstance(held, OnDisk):
        return held
    there = copy.copy(held)
    for name, value in vars(held).items():
        if isinstance(value, Tensor):
            setattr(there, name, value.to(device))
        elif isinstance(value, Batched):
            setattr(there, name, on_device(value, device))
    return there


def fits_on(held: Batched, device: torch.device) -> bool:
    """Whether a device is a GPU, a tenth of whose free memory is enough for all tensors of a data set."""
    return device.type == "cuda" and _bytes(held) <= _SHARE * torch.cuda.mem_get_info(device)[0]


def _bytes(held: Batched) -> int:
    values = vars(held).values()
    return sum(
        value.nbytes if isinstance(value, Tensor) else _bytes(value)
        for value in values
        if isinstance(value, Tensor | Batched)
    )
