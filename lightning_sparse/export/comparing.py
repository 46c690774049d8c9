"""What two networks give for an example, and for noise like it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.channel_groups import call
from lightning_sparse.anatomy.first_tensor import tensors_in
from lightning_sparse.export.same_outputs import relative_difference


def run(model: nn.Module, example: Any) -> list[Tensor]:
    """The tensors that a model gives on a copy of the example, with the same random numbers each time."""
    torch.manual_seed(0)
    with torch.no_grad():
        return [output.detach() for output in tensors_in(call(model, copied(example)))]


def difference(wanted: Sequence[Tensor], given: Sequence[Tensor]) -> float:
    """The largest difference in units of what is allowed: 1e-5 of a tensor's largest value, in half precision 1e-2.

    Example:
        >>> round(difference([torch.tensor([4.0, -2.0])], [torch.tensor([4.0, -2.0001])]), 1)
        2.5
    """
    if len(wanted) != len(given):
        return math.inf
    return max(
        relative_difference(other, one) / (1e-2 if one.dtype in (torch.float16, torch.bfloat16) else 1e-5)
        for one, other in zip(wanted, given, strict=True)
    )


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


def copied(example: Any) -> Any:
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
