"""Noise in channels, to see whether anything depends on what they hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lightning_sparse.anatomy.channel_group import ChannelGroup


@contextmanager
def noise_in(
    model: nn.Module, groups: Sequence[ChannelGroup], slots: Sequence[Tensor], moved: Mapping[str, Tensor]
) -> Iterator[None]:
    """Let what writes into these slots, and depends on the input, write noise instead, as large as its largest output."""
    handles, source = [], torch.Generator().manual_seed(0)  # of its own: a model may draw random numbers

    def disturb(channels: Tensor, module: Any, args: Any, given: Tensor) -> Tensor:
        disturbed = given.clone()
        rows = disturbed.movedim(channel_axis(module, given), 0)
        noise = torch.randn(rows[channels].shape, generator=source).to(given)
        rows[channels] = noise * (1 + given.detach().abs().max() if given.numel() else 1)
        return disturbed

    for group, noisy in zip(groups, slots, strict=True):
        for member in group.having("writes"):
            channels = member.channels[noisy[member.slots] & moved[member.name][member.channels]]
            if len(channels):
                hook = partial(disturb, channels)
                handles.append(model.get_submodule(member.name).register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def channel_axis(module: Any, tensor: Tensor) -> int:
    """The axis of the channels in what a layer reads or writes; a convolution takes one image without a batch too."""
    if not isinstance(module, _ConvNd):
        return -1
    return 1 if tensor.dim() == module.weight.dim() else 0
