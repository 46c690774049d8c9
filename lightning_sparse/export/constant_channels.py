"""Which channels are the same whatever the input, and the value of each where it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from lightning_sparse.anatomy.channel_group import ChannelGroup
from lightning_sparse.anatomy.channel_groups import is_depthwise
from lightning_sparse.export.channel_links import linked
from lightning_sparse.export.noise_in_channels import channel_axis, noise_in

Slots = list[Tensor]  # by group, boolean


class Constants(NamedTuple):
    """Slots that are the same for every input.

    Attributes:
        slots: by group, True for a slot that is.
        values: by layer that reads some: the value of each input (nan where it varies), and whether it is zero exactly.
        moved: by layer that writes: which of its outputs depend on the input.
    """

    slots: Slots
    values: dict[str, tuple[Tensor, Tensor]]
    moved: dict[str, Tensor]


def constant_channels(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    layers: Mapping[str, Any],
    links: Mapping[str, Tensor],
    run: Callable[[Any], Any],
    examples: Iterable[Any],
) -> Constants:
    """Find the slots that hold the same whatever the input.

    That is so if whatever writes a slot has no weight on anything that depends on the input, or if a depthwise kernel or a
    norm's weight of zero silences it and noise put into it does not come out anywhere else. The values are then read off a
    forward pass, where BatchNorm's shift and activations have been at them.

    Args:
        model: the model of the groups, in eval mode.
        groups: what goes together.
        layers: the members' modules, by name.
        links: which input of a layer has a weight to which output, by its name.
        run: runs the model on an example.
        examples: inputs to read constants from.
    """
    silenced = _silenced(groups, layers)
    constant, moved = _constant(groups, links, silenced)
    with noise_in(model, groups, silenced, moved):
        values = _values(model, groups, constant, run, examples)
    _with_another_way(groups, constant, silenced, values)
    return Constants(constant, values, moved)


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
    moved = {name: linked(link, varies[name], 1) for name, link in links.items()}
    while True:
        before = {name: inputs.clone() for name, inputs in varies.items()}
        written = [_written(group, moved) for group in groups]
        for group, moves, quiet in zip(groups, written, silenced, strict=True):
            for member in group.having("reads"):
                varies[member.name][member.channels[(~moves | quiet)[member.slots]]] = False
        changed = [name for name, inputs in varies.items() if not torch.equal(inputs, before[name])]
        if not changed:
            return [~moves | quiet for moves, quiet in zip(written, silenced, strict=True)], moved
        moved |= {name: linked(links[name], varies[name], 1) for name in changed}


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
