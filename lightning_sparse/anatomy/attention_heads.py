"""The heads of attention modules whose forward pass reads how many there are, so that one can be removed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from lightning_sparse.anatomy.channel_group import ChannelGroup, Member


def head_groups(model: nn.Module) -> Iterator[ChannelGroup]:
    """One group for each of timm's ``Attention`` modules, with a slot for each head.

    Attention averages the values, with weights that sum to 1. So a head whose values are constant gives this constant,
    whatever its queries and keys are: only the values count as written.

    Example:
        >>> import timm
        >>> net = timm.create_model("vit_tiny_patch16_224", depth=1)
        >>> [(group.size, [(m.name, m.role, len(m.channels)) for m in group.members]) for group in head_groups(net)]
        [(3, [('blocks.0.attn.qkv', 'writes', 192), ('blocks.0.attn.qkv', 'each', 384), ('blocks.0.attn', 'each', 3), ('blocks.0.attn.proj', 'reads', 192)])]
    """  # noqa: E501
    for name, module in model.named_modules():
        if is_attention(module):
            yield _heads(name, module)


def is_attention(module: Any) -> bool:
    """Whether it is timm's ``Attention``, whose heads are its number ``num_heads``."""
    return any(
        f"{kind.__module__}.{kind.__name__}" == "timm.layers.attention.Attention" for kind in type(module).__mro__
    )


def _heads(name: str, module: Any) -> ChannelGroup:
    heads, width = module.num_heads, module.head_dim
    slots = torch.arange(heads).repeat_interleave(width)
    channels = torch.arange(heads * width)
    members = (
        Member(f"{name}.qkv", "writes", slots, channels + 2 * heads * width),
        Member(f"{name}.qkv", "each", slots.repeat(2), torch.arange(2 * heads * width)),
        Member(name, "each", torch.arange(heads), torch.arange(heads)),
        Member(f"{name}.proj", "reads", slots, channels),
    )
    plain = isinstance(module.norm, nn.Identity) and module.gate is None
    obstacle = "" if plain else f"{name!r} normalises or gates all heads together"
    return ChannelGroup(heads, members, obstacle)
