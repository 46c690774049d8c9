"""Whether two networks give the same outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.channel_groups import call
from lightning_sparse.anatomy.first_tensor import tensors_in


def run(model: nn.Module, example: Any) -> list[Tensor]:
    """The tensors that a model gives on a copy of the example, with the same random numbers each time."""
    torch.manual_seed(0)
    with torch.no_grad():
        return [output.detach() for output in tensors_in(call(model, copied(example)))]


def difference(wanted: Sequence[Tensor], given: Sequence[Tensor]) -> float:
    """The largest difference of tensors, in units of what is allowed: 1e-5 of a tensor's largest value (in half precision 1e-2).

    Example:
        >>> round(difference([torch.tensor([4.0, -2.0])], [torch.tensor([4.0, -2.0001])]), 1)
        2.5
    """  # noqa: E501
    if [one.shape for one in wanted] != [other.shape for other in given]:
        return math.inf
    worst = 0.0
    for one, other in zip(wanted, given, strict=True):
        allowed = 1e-2 if one.dtype in (torch.float16, torch.bfloat16) else 1e-5
        wide = torch.complex128 if one.is_complex() else torch.float64
        one, other = one.to(wide), other.to(wide)
        finite = one.isfinite()
        if not torch.equal(one[~finite].nan_to_num(), other[~finite].nan_to_num()):
            return math.inf
        gap = (one - other)[finite].abs()
        if bool(gap.any()):
            worst = max(worst, float(gap.max() / (allowed * one[finite].abs().max())))
            if math.isnan(worst):
                return math.inf
    return worst


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
