"""Which channels of a network carry nothing: the same value for every input, or a value that nothing reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from lightning_sparse.anatomy.channel_group import ChannelGroup, Member
from lightning_sparse.anatomy.channel_groups import call, is_depthwise

Slots = list[Tensor]  # by group, boolean


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

    A slot is *constant* if whatever writes it has no weight on anything that depends on the input, or if a depthwise kernel
    or a norm's weight of zero silences it and noise put into it does not come out anywhere else. Its values are then
    read off a forward pass, where BatchNorm's shift and activations have been at them, and can be folded into the biases of
    what reads it. It is *unread* if whatever reads it has no weight on it. Both spread: a unit that reads only constants is
    constant, and what only unread units read is unread.

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
    links = {name: _links(layers[name]) for name in sorted(linking)}
    silenced = _silenced(groups, layers)
    constant, moved = _constant(groups, links, silenced)
    with noise_in(model, groups, silenced, moved):
        values = _values(model, groups, constant, partial(forward, model), examples)
    _with_another_way(groups, constant, silenced, values)
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


def _links(layer: Any) -> Tensor:
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


def _linked(links: Tensor, ends: Tensor, axis: int) -> Tensor:
    """Which outputs (axis 1) or inputs (axis 0) have a weight to one of these ends on the other side."""
    # The largest of bytes is found many times as fast as whether any truth value is true.
    at_ends = links if bool(ends.all()) else links & ends.view(torch.uint8).unsqueeze(1 - axis)
    return at_ends.amax(axis).bool() if at_ends.numel() else torch.zeros(links.shape[1 - axis], dtype=torch.bool)


def _silences(layer: Any) -> Tensor | None:
    """Channels of a layer that works on each alone whose output is the same whatever the input."""
    if not (is_depthwise(layer) or isinstance(layer, _NormBase)) or layer.weight is None:
        return None
    weight: Tensor = layer.weight.detach().view(len(layer.weight), -1)
    return (weight == 0).all(1).cpu()


def _silenced(groups: Sequence[ChannelGroup], layers: Mapping[str, Any]) -> Slots:
    """Slots that pass through a layer which gives the same whatever comes in."""
    found = [torch.zeros(group.size, dtype=torch.bool) for group in groups]
    for group, slots in zip(groups, found, strict=True):
        for member in group.having("each"):
            channels = _silences(layers.get(member.name))
            if channels is not None:
                slots[member.slots[channels[member.channels]]] = True
    return found


def _with_another_way(
    groups: Sequence[ChannelGroup], constant: Slots, silenced: Slots, values: Mapping[str, tuple[Tensor, Tensor]]
) -> None:
    """Slots that are silenced in one place only, and reach a reader by another, are not constant."""
    for group, slots, quiet in zip(groups, constant, silenced, strict=True):
        for member in group.having("reads"):
            if member.name in values:
                varied = values[member.name][0][member.channels].isnan()
                slots[member.slots[varied & quiet[member.slots]]] = False


def _constant(
    groups: Sequence[ChannelGroup], links: Mapping[str, Tensor], silenced: Slots
) -> tuple[Slots, dict[str, Tensor]]:
    """Slots that are the same for every input, and which outputs of layers are not."""
    varies = {name: torch.ones(link.shape[1], dtype=torch.bool) for name, link in links.items()}
    moved = {name: _linked(link, varies[name], 1) for name, link in links.items()}
    while True:
        before = {name: inputs.clone() for name, inputs in varies.items()}
        written = [_written(group, moved) for group in groups]
        for group, moves, quiet in zip(groups, written, silenced, strict=True):
            for member in group.having("reads"):
                varies[member.name][member.channels[(~moves | quiet)[member.slots]]] = False
        changed = [name for name, inputs in varies.items() if not torch.equal(inputs, before[name])]
        if not changed:
            return [~moves | quiet for moves, quiet in zip(written, silenced, strict=True)], moved
        moved |= {name: _linked(links[name], varies[name], 1) for name in changed}


def _written(group: ChannelGroup, moved: Mapping[str, Tensor]) -> Tensor:
    """Slots into which something writes what depends on the input."""
    writers = group.having("writes")
    found = torch.full((group.size,), not writers)
    for member in writers:
        found[member.slots[moved[member.name][member.channels]]] = True
    return found


def _values(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    constant: Slots,
    run: Callable[[Any], Any],
    examples: Iterable[Any],
) -> dict[str, tuple[Tensor, Tensor]]:
    """By layer that reads constants: the value of each input (nan where it varies), and whether it is zero exactly."""
    readers = {
        m.name
        for g, slots in zip(groups, constant, strict=True)
        if slots.any() and not g.obstacle
        for m in g.having("reads")
    }
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def see(name: str, module: Any, args: Any, kwargs: Any) -> None:
        given = args[0] if args else kwargs["input"]
        given = given.data if isinstance(given, nn.utils.rnn.PackedSequence) else given.detach()
        rows = given.movedim(channel_axis(module, given), 0).flatten(1).double().cpu()
        if rows.shape[1]:
            low, high = seen.get(name, (torch.tensor(torch.inf), torch.tensor(-torch.inf)))
            seen[name] = torch.minimum(low, rows.amin(1)), torch.maximum(high, rows.amax(1))

    handles = [
        model.get_submodule(name).register_forward_pre_hook(partial(see, name), with_kwargs=True)
        for name in sorted(readers)
    ]
    try:
        for example in examples:
            run(example)
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for name, (low, high) in seen.items():
        same = (high - low) <= 1e-6 * torch.maximum(high.abs(), torch.tensor(1.0))  # sums of equal values round
        found[name] = (torch.where(same, (low + high) / 2, torch.nan), (low == 0) & (high == 0))
    return found


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
        obstacle, varied = _unfoldable(layers[member.name]), value.isnan()
        lost = torch.zeros_like(constant)
        lost[member.slots[~zero & (varied | bool(obstacle) | (not fold))]] = True
        if bool((lost & constant).any()):
            differ = "they differ from place to place" if bool(varied[constant[member.slots]].any()) else ""
            reason = "fold=False" if not fold else obstacle or differ
            why.append(f"constants other than 0 cannot be folded into {member.name!r} ({reason})")
        found &= ~lost
    return found


def _unfoldable(layer: Any) -> str:
    """Why a constant input does not add the same in every place to what a layer gives; empty if it does."""
    if isinstance(layer, nn.LSTM):
        return "" if layer.bias else "it has no bias"
    if not isinstance(layer, _ConvNd):
        return ""
    borders = layer.padding != "valid" if isinstance(layer.padding, str) else any(layer.padding)
    padded = "its padding is 0" if borders and layer.padding_mode == "zeros" else ""
    return "it is a transposed convolution" if layer.transposed else padded


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
        heard |= {name: _linked(links[name], alive[name], 0) for name in (changed if heard else links)}
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
