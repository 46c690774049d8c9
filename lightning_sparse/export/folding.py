"""A constant input of a layer goes into its bias, where the layer makes the same of it in every place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd


def unfoldable(layer: Any) -> str:
    """Why a constant input does not add the same in every place to what a layer gives; empty if it does."""
    if isinstance(layer, nn.LSTM):
        return "" if layer.bias else "it has no bias"
    if not isinstance(layer, _ConvNd):
        return ""
    borders = layer.padding != "valid" if isinstance(layer.padding, str) else any(layer.padding)
    padded = "its padding is 0" if borders and layer.padding_mode == "zeros" else ""
    return "it is a transposed convolution" if layer.transposed else padded


def fold_into(layer: Any, constants: Tensor) -> None:
    """Add what these inputs, constant and 0 elsewhere, give in a layer to its bias."""
    if not bool(constants.any()) or getattr(layer, "transposed", False):  # of those only zeros go
        return
    ends = ("_ih_l0", "_ih_l0_reverse")[: 1 + layer.bidirectional] if isinstance(layer, nn.LSTM) else ("",)
    for end in ends:
        _fold(layer, f"weight{end}", f"bias{end}", constants)


def _fold(layer: Any, leaf: str, name: str, constants: Tensor) -> None:
    weight: Any = getattr(layer, leaf)
    with torch.no_grad():
        matrix: Tensor = weight.double()
        constants = constants.to(weight.device).double()
        if isinstance(layer, _ConvNd):
            grouped = matrix.flatten(2).sum(2).view(layer.groups, -1, matrix.shape[1])
            added = torch.einsum("goi,gi->go", grouped, constants.view(layer.groups, -1)).flatten()
        else:
            added = matrix @ constants
        if getattr(layer, name) is None:
            layer.register_parameter(name, nn.Parameter(weight.new_zeros(len(weight))))
        bias = getattr(layer, name)
        bias.copy_(bias.double() + added)
