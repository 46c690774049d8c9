"""Which channels have a weight to which, in one layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd


def links_of(layer: Any) -> Tensor:
    """Which input has a weight to which output: 0 or 1, shape (outputs, inputs)."""
    if isinstance(layer, nn.LSTM):
        weight = torch.cat([w.detach() for n, w in layer.named_parameters() if n.startswith("weight_ih_l0")])
    elif isinstance(layer, nn.Embedding):
        weight = layer.weight.detach().mT.abs().amax(1, keepdim=True)
    elif isinstance(layer, _ConvNd):
        largest = layer.weight.detach().flatten(2).abs().amax(2)
        parts = largest.view(layer.groups, -1, largest.shape[1])
        blocks = [part.mT if layer.transposed else part for part in parts]
        weight = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    else:
        weight = layer.weight.detach()
    return (weight != 0).cpu().view(torch.uint8)


def linked(links: Tensor, ends: Tensor, axis: int) -> Tensor:
    """Which outputs (axis 1) or inputs (axis 0) have a weight to one of these ends on the other side."""
    # The largest of bytes is found many times as fast as whether any truth value is true.
    at_ends = links if bool(ends.all()) else links & ends.view(torch.uint8).unsqueeze(1 - axis)
    return at_ends.amax(axis).bool() if at_ends.numel() else torch.zeros(links.shape[1 - axis], dtype=torch.bool)
