"""Which channels of a network carry nothing: the same value for every input, or a value that nothing reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lightning_sparse.anatomy.channel_group import ChannelGroup, Member
from lightning_sparse.anatomy.channel_groups import call, is_depthwise


@dataclass
class Removable:
    """What can go from each group.

    Attributes:
        gone: by group, True for a slot that can go.
        constants: by name of a layer that reads: the constant of each of its inputs, 0 where it is none.
        dead: by group, how many slots carry nothing, whether they can go or not.
        why: by group, why dead slots stay, where some do.
    """

    gone: list[Tensor]
    constants: dict[str, Tensor] = field(default_factory=dict)
    dead: list[int] = field(default_factory=list)
    why: list[str] = field(default_factory=list)


def removable(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    examples: Iterable[Any],
    *,
    fold: bool = True,
    forward: Callable[[Any, Any], Any] = call,
) -> Removable:
    """Find the slots that can be removed so that the outputs stay as they are.

    A slot is *constant* if whatever writes it has no weight on anything that depends on the input; its values are then read
    off a forward pass, where BatchNorm's shift and activations have been at them, and can be folded into the biases of what
    reads it. It is *unread* if whatever reads it has no weight on it. Both spread: a unit that reads only constants is
    constant, and what only unread units read is unread.

    Args:
        model: the model of the groups, in eval mode.
        groups: what goes together.
        examples: inputs to read constants from.
        fold: whether a constant that is not zero may go.
        forward: how the model is run on an example.
    """
    modules, members = dict(model.named_modules()), [m for group in groups for m in group.members]
    layers = {m.name: modules[m.name] for m in members if m.role != "each" or is_depthwise(modules.get(m.name))}
    links = {name: _links(layer) for name, layer in layers.items() if not is_depthwise(layer)}
    constant = _constant(groups, links, layers)
    values = _values(model, groups, constant, links, examples, forward)
    foldable, why = [], []
    for group, slots in zip(groups, constant, strict=True):
        fits, reason = _foldable(group, slots, values, layers, fold)
        foldable.append(fits & (not group.obstacle))
        why.append(group.obstacle or reason)
    unread = _unread(groups, links, foldable)
    dead = [int((slots | unheard).sum()) for slots, unheard in zip(constant, unread, strict=True)]
    gone = _possible(layers, groups, links, foldable, unread)
    return Removable(gone, {n: torch.nan_to_num(value) for n, (value, _) in values.items()}, dead, why)


def _links(layer: Any) -> Any:
    """Which input has a weight to which output: boolean, shape (outputs, inputs)."""
    if isinstance(layer, nn.LSTM):
        weights = [w.detach() for n, w in layer.named_parameters() if n.startswith("weight_ih_l0")]
        return (torch.cat(weights) != 0).cpu()
    weight = layer.weight.detach()
    if isinstance(layer, nn.Embedding):
        return (weight != 0).any(0)[:, None].cpu()
    if not isinstance(layer, _ConvNd):
        return (weight != 0).cpu()
    parts = (weight != 0).flatten(2).any(2).unflatten(0, (layer.groups, -1))
    blocks = [part.mT if layer.transposed else part for part in parts]
    return torch.block_diag(*blocks).bool().cpu()  # type: ignore[no-untyped-call]


def _constant(groups: Sequence[ChannelGroup], links: Mapping[str, Tensor], layers: Mapping[str, Any]) -> list[Tensor]:
    found = [torch.zeros(group.size, dtype=torch.bool) for group in groups]
    varies = {name: torch.ones(link.shape[1], dtype=torch.bool) for name, link in links.items()}
    while True:
        before = [slots.clone() for slots in found]
        for group, slots in zip(groups, found, strict=True):
            written = torch.ones(group.size, dtype=torch.bool)
            silenced = torch.zeros(group.size, dtype=torch.bool)
            for member in group.members:
                if member.role == "writes":
                    moved = (links[member.name] & varies[member.name]).any(1)
                    written[member.slots[moved[member.channels]]] = False
                elif member.role == "each" and is_depthwise(layers.get(member.name)):  # a kernel of zeros
                    kernel = layers[member.name].weight.detach().flatten(1)
                    silenced[member.slots[(kernel == 0).all(1).cpu()[member.channels]]] = True
            slots |= (written & bool(group.having("writes"))) | silenced
            for member in group.having("reads"):
                varies[member.name][member.channels[slots[member.slots]]] = False
        if all(torch.equal(old, new) for old, new in zip(before, found, strict=True)):
            return found


def _values(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    constant: Sequence[Tensor],
    links: Mapping[str, Tensor],
    examples: Iterable[Any],
    forward: Callable[[Any, Any], Any],
) -> dict[str, tuple[Tensor, Tensor]]:
    """By layer that reads constants: the value of each input (nan where it varies), and whether it is zero exactly."""
    readers = {
        m.name
        for g, slots in zip(groups, constant, strict=True)
        if slots.any()
        for m in g.having("reads")
        if not g.obstacle
    }
    lowest = {name: torch.full((links[name].shape[1],), torch.inf) for name in readers}
    highest = {name: -lowest[name] for name in readers}
    handles = []
    for name in readers:

        def see(module: Any, args: Any, kwargs: Any, name: str = name) -> None:
            given = (args[0] if args else kwargs["input"]).detach()
            axis = 1 if isinstance(module, _ConvNd) and given.dim() == module.weight.dim() else -1
            if isinstance(module, _ConvNd) and axis == -1:
                axis = 0  # a convolution takes one image without a batch too
            rows = given.movedim(axis, 0).flatten(1).double().cpu()
            lowest[name] = torch.minimum(lowest[name], rows.amin(1))
            highest[name] = torch.maximum(highest[name], rows.amax(1))

        handles.append(model.get_submodule(name).register_forward_pre_hook(see, with_kwargs=True))
    try:
        for example in examples:
            forward(model, example)
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for name in readers:
        low, high = lowest[name], highest[name]
        same = (high - low) <= 1e-6 * torch.maximum(high.abs(), torch.tensor(1.0))  # sums of equal values round
        middle = torch.where(same, (low + high) / 2, torch.nan)
        found[name] = (middle, (low == 0) & (high == 0))
    return found


def _foldable(
    group: ChannelGroup,
    constant: Tensor,
    values: Mapping[str, tuple[Tensor, Tensor]],
    layers: Mapping[str, Any],
    fold: bool,
) -> tuple[Tensor, str]:
    found, why = constant.clone(), ""
    for member in group.having("reads"):
        if member.name not in values:
            continue
        value, zero = values[member.name]
        fits = zero[member.channels] | (
            ~value[member.channels].isnan() & (fold and _takes_constants(layers[member.name]))
        )
        lost = member.slots[~fits]
        if bool(found[lost].any()):
            why = f"constants other than 0 cannot be folded into {member.name!r}" + (
                "" if not fold else f" ({_border(layers[member.name])})"
            )
        found[lost] = False
    return found, why


def _takes_constants(layer: Any) -> bool:
    if not isinstance(layer, _ConvNd):
        return True
    padded = layer.padding_mode == "zeros" and (isinstance(layer.padding, str) or any(layer.padding))
    return not layer.transposed and not (padded and layer.padding != "valid")


def _border(layer: Any) -> str:
    return "its padding is 0" if isinstance(layer, _ConvNd) else "they differ from place to place"


def _unread(groups: Sequence[ChannelGroup], links: Mapping[str, Tensor], gone: Sequence[Tensor]) -> list[Tensor]:
    """Slots that only outputs without a reader read; ``gone`` are slots that go anyway."""
    found = [slots.clone() for slots in gone]
    alive = {name: torch.ones(link.shape[0], dtype=torch.bool) for name, link in links.items()}
    while True:
        before = [slots.clone() for slots in found]
        for group, slots in zip(groups, found, strict=True):
            for member in group.having("writes"):
                alive[member.name][member.channels[slots[member.slots]]] = False
        for group, slots in zip(groups, found, strict=True):
            if not group.having("reads") or group.obstacle:
                continue
            read = torch.zeros(group.size, dtype=torch.bool)
            for member in group.having("reads"):
                heard = (links[member.name] & alive[member.name][:, None]).any(0)
                read[member.slots[heard[member.channels]]] = True
            slots |= ~read
        if all(torch.equal(old, new) for old, new in zip(before, found, strict=True)):
            return found


def _possible(
    layers: Mapping[str, Any],
    groups: Sequence[ChannelGroup],
    links: Mapping[str, Tensor],
    foldable: Sequence[Tensor],
    unread: Sequence[Tensor],
) -> list[Tensor]:
    """Leave each group a slot, and each grouped convolution as many channels in every one of its groups."""
    gone = [slots.clone() for slots in unread]
    while True:
        before = [slots.clone() for slots in gone]
        for group, slots in zip(groups, gone, strict=True):
            if bool(slots.all()):
                slots[0] = False
            for member in group.members:
                _even(layers.get(member.name), member, slots)
        # What stays reads what it reads: an unread slot stays if a reader of its stays after all.
        alive = _unread(groups, links, [f & g for f, g in zip(foldable, gone, strict=True)])
        gone = [slots & (heard | f) for slots, heard, f in zip(gone, alive, foldable, strict=True)]
        if all(torch.equal(old, new) for old, new in zip(before, gone, strict=True)):
            return gone


def _even(layer: Any, member: Member, gone: Tensor) -> None:
    if not isinstance(layer, _ConvNd) or layer.groups == 1 or is_depthwise(layer):
        return
    channels = layer.in_channels if member.role == "reads" else layer.out_channels
    of_slot = {int(slot): int(channel) for slot, channel in zip(member.slots, member.channels, strict=True)}
    width = channels // layer.groups
    by_group: list[list[int]] = [[] for _ in range(layer.groups)]
    for slot in gone.nonzero().flatten().tolist():
        if slot in of_slot:
            by_group[of_slot[slot] // width].append(slot)
    least = min(len(slots) for slots in by_group)
    for slots in by_group:
        gone[slots[min(least, width - 1) :]] = False
