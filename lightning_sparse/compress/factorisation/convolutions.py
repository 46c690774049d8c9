"""The plain layers that factorised ones are made of, with the place, the type and the bias of the layer they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init


def linear(layer: nn.Linear, inputs: int, outputs: int, *, last: bool = False) -> nn.Linear:
    """A Linear layer without values; the last one has the bias of the layer."""
    made: nn.Linear = skip_init(nn.Linear, inputs, outputs, bias=False, **_place(layer))  # type: ignore[no-untyped-call]
    return _with_bias(made, layer) if last else made


def conv(
    layer: Any, inputs: int, outputs: int, dimensions: Sequence[int] | None = None, *, groups: int = 1
) -> nn.Module:
    """A convolution without bias and values that moves over some dimensions as the layer does, and over others not at all."""
    everywhere = range(len(layer.kernel_size))
    moves = [dimension in (everywhere if dimensions is None else dimensions) for dimension in everywhere]

    def only(values: Sequence[int], otherwise: int) -> tuple[int, ...]:
        return tuple(value if here else otherwise for value, here in zip(values, moves, strict=True))

    padding = layer.padding if isinstance(layer.padding, str) else only(layer.padding, 0)
    made: nn.Module = skip_init(  # type: ignore[no-untyped-call]
        type(layer),
        inputs,
        outputs,
        only(layer.kernel_size, 1),
        stride=only(layer.stride, 1),
        padding=padding,
        dilation=only(layer.dilation, 1),
        groups=groups,
        bias=False,
        padding_mode=layer.padding_mode,
        **_place(layer),
    )
    return made


def pointwise(layer: Any, inputs: int, outputs: int, *, last: bool = False) -> nn.Module:
    """A convolution of one pixel without values; the last one has the bias of the layer."""
    made: nn.Module = skip_init(type(layer), inputs, outputs, 1, bias=False, **_place(layer))  # type: ignore[no-untyped-call]
    return _with_bias(made, layer) if last else made


def levelled(factors: Sequence[Tensor]) -> list[Tensor]:
    """The same product of factors that all have the same root mean square.

    Example:
        >>> [part.tolist() for part in levelled([torch.tensor([8.0]), torch.tensor([2.0])])]
        [[4.0], [4.0]]
    """
    sizes = torch.stack([factor.square().mean().sqrt() for factor in factors])
    if not bool((sizes > 0).all()):
        return list(factors)
    mean = sizes.log().mean().exp()
    return [factor * (mean / size) for factor, size in zip(factors, sizes, strict=True)]


def _place(layer: Any) -> dict[str, Any]:
    return {"device": layer.weight.device, "dtype": layer.weight.dtype}


def _with_bias(made: Any, layer: Any) -> Any:
    made.bias = layer.bias
    return made
