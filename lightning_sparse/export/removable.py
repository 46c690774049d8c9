"""Which channels of a network carry nothing: the same value for every input, or a value that nothing reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lightning_sparse.anatomy.channel_group import ChannelGroup, Member
from lightning_sparse.anatomy.channel_groups import call, is_depthwise
from lightning_sparse.export.channel_links import linked, links_of
from lightning_sparse.export.constant_channels import Slots, constant_channels
from lightning_sparse.export.folding import unfoldable


@dataclass
class Removable:
    """What can go from each group.

    Attributes:
        gone: by group, True for a slot that can go.
        constants: by name of a layer that reads: the constant of each of its inputs, 0 where it is none.
        dead: by group, how many slots carry nothing, whether they can go or not.
        why: by group, why dead slots stay, where some do.
        moved: by name of a layer that writes: which of its outputs depend on the input.
    """

    gone: Slots
    constants: dict[str, Tensor] = field(default_factory=dict)
    dead: list[int] = field(default_factory=list)
    why: list[str] = field(default_factory=list)
    moved: dict[str, Tensor] = field(default_factory=dict)


def removable(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    examples: Iterable[Any],
    *,
    fold: bool = True,
    forward: Callable[[Any, Any], Any] = call,
) -> Removable:
    """Find the slots that can be removed so that the outputs stay as they are.

    A slot is *constant* if it holds the same whatever the input (:func:`constant_channels`); its values can be folded into
    the biases of what reads it. It is *unread* if whatever reads it has no weight on it. Both spread: a unit that reads only
    constants is constant, and what only unread units read is unread.

    Args:
        model: the model of the groups, in eval mode.
        groups: what goes together.
        examples: inputs to read constants from.
        fold: whether a constant that is not zero may go.
        forward: how the model is run on an example.
    """
    modules = dict(model.named_modules())
    layers = {m.name: modules[m.name] for group in groups for m in group.members if m.name in modules}
    linking = {m.name for group in groups for m in group.members if m.role != "each"}
    links = {name: links_of(layers[name]) for name in sorted(linking)}
    constant, values, moved = constant_channels(model, groups, layers, links, partial(forward, model), examples)
    reasons: list[list[str]] = [[group.obstacle] if group.obstacle else [] for group in groups]
    foldable = [
        _foldable(group, slots, values, layers, fold, why)
        for group, slots, why in zip(groups, constant, reasons, strict=True)
    ]
    unread = _unread(groups, links, foldable)
    dead = [int((slots | unheard).sum()) for slots, unheard in zip(constant, unread, strict=True)]
    gone = _possible(layers, groups, links, foldable, unread, reasons)
    constants = {name: torch.nan_to_num(value) for name, (value, _) in values.items()}
    return Removable(gone, constants, dead, ["; ".join(dict.fromkeys(why)) for why in reasons], moved)


def _foldable(
    group: ChannelGroup,
    constant: Tensor,
    values: Mapping[str, tuple[Tensor, Tensor]],
    layers: Mapping[str, Any],
    fold: bool,
    why: list[str],
) -> Tensor:
    """Constant slots that every reader can do without; ``why`` gets the reason of others."""
    if group.obstacle:
        return torch.zeros_like(constant)
    found = constant.clone()
    for member in group.having("reads"):
        if member.name not in values:
            if bool(constant.any()):
                why.append(f"{member.name!r} is not called, so that its inputs cannot be seen")
            return torch.zeros_like(constant)
        value, zero = (each[member.channels] for each in values[member.name])
        obstacle, varied = unfoldable(layers[member.name]), value.isnan()
        lost = torch.zeros_like(constant)
        lost[member.slots[~zero & (varied | bool(obstacle) | (not fold))]] = True
        if bool((lost & constant).any()):
            differ = "they differ from place to place" if bool(varied[constant[member.slots]].any()) else ""
            reason = "fold=False" if not fold else obstacle or differ
            why.append(f"constants other than 0 cannot be folded into {member.name!r} ({reason})")
        found &= ~lost
    return found


def _unread(groups: Sequence[ChannelGroup], links: Mapping[str, Tensor], gone: Slots) -> Slots:
    """Slots that only outputs without a reader read; ``gone`` are slots that go anyway."""
    found = [slots.clone() for slots in gone]
    alive = {name: torch.ones(link.shape[0], dtype=torch.bool) for name, link in links.items()}
    heard: dict[str, Tensor] = {}
    while True:
        before = {name: outputs.clone() for name, outputs in alive.items()}
        for group, slots in zip(groups, found, strict=True):
            for member in group.having("writes"):
                alive[member.name][member.channels[slots[member.slots]]] = False
        changed = [name for name, outputs in alive.items() if not torch.equal(outputs, before[name])]
        if heard and not changed:
            return found
        heard |= {name: linked(links[name], alive[name], 0) for name in (changed if heard else links)}
        for group, slots in zip(groups, found, strict=True):
            if not group.obstacle:
                read = torch.zeros(group.size, dtype=torch.bool)
                for member in group.having("reads"):
                    read[member.slots[heard[member.name][member.channels]]] = True
                slots |= ~read
        if not links:
            return found


def _possible(
    layers: Mapping[str, Any],
    groups: Sequence[ChannelGroup],
    links: Mapping[str, Tensor],
    foldable: Slots,
    unread: Slots,
    reasons: Sequence[list[str]],
) -> Slots:
    """Leave each group a slot, and each grouped convolution as many channels in every one of its groups."""
    gone = [slots.clone() for slots in unread]
    while True:
        before = [slots.clone() for slots in gone]
        for group, slots, why in zip(groups, gone, reasons, strict=True):
            for member in group.members:
                layer = layers.get(member.name)
                if isinstance(layer, _ConvNd) and layer.groups > 1 and not is_depthwise(layer):
                    stay = _uneven(layer, member, slots)
                    if bool(slots[stay].any()):
                        slots[stay] = False
                        why.append(f"every group of {member.name!r} has to keep as many")
            if bool(slots.all()) and len(slots):
                slots[0] = False
                why.append("one has to")
        # What stays reads what it reads: an unread slot stays if a reader of its stays after all.
        alive = _unread(groups, links, [f & g for f, g in zip(foldable, gone, strict=True)])
        gone = [slots & (heard | f) for slots, heard, f in zip(gone, alive, foldable, strict=True)]
        if all(torch.equal(old, new) for old, new in zip(before, gone, strict=True)):
            return gone


def _uneven(conv: _ConvNd, member: Member, gone: Tensor) -> Tensor:
    """Slots to keep so that every group of a grouped convolution loses as many channels, and not all."""
    channels = conv.in_channels if member.role == "reads" else conv.out_channels
    lost = torch.zeros(channels, dtype=torch.int64)
    lost[member.channels] = gone[member.slots].long()
    by_group = lost.view(conv.groups, -1)
    least = min(int(by_group.sum(1).min()), by_group.shape[1] - 1)
    too_many = ((by_group == 1) & (by_group.cumsum(1) > least)).flatten()
    return member.slots[too_many[member.channels]]
