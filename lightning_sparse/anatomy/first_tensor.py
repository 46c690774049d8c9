"""Find tensors in what a loader or a model gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

from torch import Tensor


def first_tensor(values: Any) -> Tensor | None:
    """Return the first tensor in nested lists, tuples and mappings that is not empty, or None.

    Example:
        >>> import torch
        >>> first_tensor({"id": "a", "image": [torch.zeros(8, 3), torch.zeros(8)]}).shape
        torch.Size([8, 3])
        >>> first_tensor(["no", "tensor"]) is None
        True
    """
    if isinstance(values, Tensor):
        return values if values.numel() else None
    parts = values.values() if isinstance(values, Mapping) else values if isinstance(values, list | tuple) else ()
    return next((found for part in parts if (found := first_tensor(part)) is not None), None)


def tensors_in(values: Any) -> list[Tensor]:
    """Return all tensors in nested lists, tuples, mappings and dataclasses.

    Example:
        >>> import torch
        >>> [tensor.shape[0] for tensor in tensors_in({"logits": torch.zeros(8), "hidden": [torch.zeros(2), None]})]
        [8, 2]
    """
    if isinstance(values, Tensor):
        return [values]
    parts: Any = values if isinstance(values, list | tuple) else ()
    if isinstance(values, Mapping):
        parts = values.values()
    elif is_dataclass(values) and not isinstance(values, type):
        parts = vars(values).values()
    return [tensor for part in parts for tensor in tensors_in(part)]
