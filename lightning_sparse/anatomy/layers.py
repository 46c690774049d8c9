"""The layers whose weights are sparse by default, and which axis of a weight is which."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd


def is_layer(module: Any) -> bool:
    """Whether it is a Linear layer, a convolution, or transformers' ``Conv1D``, or a subclass of one."""
    return isinstance(module, nn.Linear | _ConvNd) or is_conv1d(module)


def is_conv1d(module: Any) -> bool:
    """Whether it is the ``Conv1D`` of transformers (GPT-2's): a Linear layer whose weight is (inputs, outputs)."""
    return any(f"{k.__module__}.{k.__name__}" == "transformers.pytorch_utils.Conv1D" for k in type(module).__mro__)


def outputs_and_inputs(layer: Any) -> tuple[int, int]:
    """How many output and input units (of a convolution: channels) one of these layers has.

    Example:
        >>> outputs_and_inputs(nn.Linear(3, 5)), outputs_and_inputs(nn.Conv2d(4, 8, 3, groups=2))
        ((5, 3), (8, 4))
    """
    if isinstance(layer, _ConvNd):
        return layer.out_channels, layer.in_channels
    return (layer.nf, layer.nx) if is_conv1d(layer) else (layer.out_features, layer.in_features)
