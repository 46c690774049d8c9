"""How many channels a layer has on either side."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from lightning_sparse.anatomy.attention_heads import is_attention


def width(model: nn.Module, name: str, side: str) -> int:
    """How many inputs or outputs a layer has, or a parameter that stands by itself."""
    module: Any = find(model, name)
    if isinstance(module, nn.Parameter):
        return module.shape[axis_of(module)]
    if isinstance(module, _NormBase):
        return module.num_features
    if isinstance(module, nn.PReLU):
        return module.num_parameters
    if isinstance(module, nn.Embedding):
        return module.embedding_dim
    if isinstance(module, nn.LSTM):
        return module.input_size
    if is_attention(module):
        return int(module.num_heads)
    if isinstance(module, _ConvNd):
        return module.in_channels if side == "inputs" else module.out_channels
    return int(module.in_features if side == "inputs" else module.out_features)


def find(model: nn.Module, name: str) -> Any:
    """The module of this name, or the parameter."""
    try:
        return model.get_submodule(name)
    except AttributeError:
        return model.get_parameter(name)


def axis_of(parameter: Tensor) -> int:
    """The axis of the channels of a parameter that stands by itself: the last one with more than one entry."""
    return max(axis for axis, size in enumerate(parameter.shape) if size > 1)


def output_axis(module: nn.Module) -> int | None:
    """The axis of a layer's weight along which its outputs lie; None in a grouped transposed convolution, where none does.

    Example:
        >>> output_axis(nn.Linear(2, 3)), output_axis(nn.ConvTranspose2d(4, 2, 3)), output_axis(nn.Embedding(5, 3))
        (0, 1, 1)
    """
    if isinstance(module, nn.Embedding):
        return 1
    if not isinstance(module, _ConvNd) or not module.transposed:
        return 0
    depthwise = module.groups == module.in_channels == module.out_channels
    return 1 if module.groups == 1 else 0 if depthwise else None
