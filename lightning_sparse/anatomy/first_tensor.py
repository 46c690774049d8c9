"""Find a tensor in what a loader or a model gives."""

from __future__ import annotations

from collections.abc import Mapping
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
