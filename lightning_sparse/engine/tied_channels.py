"""Channels that die together: in every layer that writes them, so that they can be removed from the network for good."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from lightning_sparse.anatomy.channel_group import ChannelGroup
from lightning_sparse.anatomy.channel_groups import channel_groups
from lightning_sparse.anatomy.channel_width import output_axis
from lightning_sparse.engine.allocation import global_, uniform
from lightning_sparse.engine.granularity import Granularity
from lightning_sparse.errors import SparsityError


class Place(NamedTuple):
    """Where the slots of a tie are in a parameter: which channels along which axis."""

    parameter: str
    axis: int
    slots: Tensor
    channels: Tensor


@dataclass(frozen=True)
class Tie:
    """Slots that live or die as one, with equally many weights in each.

    Attributes:
        slots: how many slots.
        size: how many sparse weights there are in each.
        weights: where these are.
        vectors: what dies with a slot and is not counted: biases, and the weights of BatchNorms.
    """

    slots: int
    size: int
    weights: tuple[Place, ...]
    vectors: tuple[Place, ...]


@dataclass(frozen=True)
class TiedChannels(Granularity):
    """Whole channels, tied over all layers that a sum, a concatenation or a depthwise convolution makes go together.

    Which go together is found by following one batch through the network
    (``anatomy/channel_groups.py``, with torch-pruning). A channel's score is the mean score of its weights in all layers that
    write it. With it die its biases and its place in BatchNorms, so that it is 0 everywhere and
    :func:`~lightning_sparse.export.shrink` can remove it. Outputs of the network, and channels that a LayerNorm or
    an attention mixes, stay dense.

    Attributes:
        ties: what goes together; None before it has been found.
    """

    ties: tuple[Tie, ...] | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return "tied_channels"

    def check(
        self,
        parameters: Mapping[str, Tensor],
        sparsities: Sequence[float],
        turnovers: Sequence[float] = (),
        allocation: object = "global",
        redistribute: bool = False,
    ) -> None:
        """Raise a SparsityError if this cannot be done with tied channels; what they leave is known once they are found."""
        if allocation not in ("global", "uniform", global_, uniform):
            raise SparsityError(
                f"allocation={allocation!r} and granularity='tied_channels': a channel belongs to several layers, so that a "
                "layer has no share of its own; write 'global' or 'uniform'"
            )
        if self.ties is None:
            return
        total, tied = sum(weight.numel() for weight in parameters.values()), sum(t.slots * t.size for t in self.ties)
        most = tied - sum(tie.size for tie in self.ties)
        if round(max(sparsities) * total) > most:
            raise SparsityError(
                f"sparsity {max(sparsities)} of {total} connections is more than the {most} in channels that can die (not "
                "those of outputs, nor of what a LayerNorm or attention mixes, nor the last of a group): ask for at most "
                f"{most * 10**6 // max(1, total) / 1e6}, or leave those layers out with exclude="
            )

    def size(self, shape: torch.Size) -> int:
        """How many weights of a parameter of this shape live or die as one, at least."""
        return shape[1:].numel()

    @property
    def sizes(self) -> dict[str, int]:
        """How many weights a slot of each tie has."""
        return {name: tie.size for name, tie in self._named()}

    def alive(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Which slots have a living connection, by tie."""
        found = {}
        for name, tie in self._named():
            alive = torch.zeros(tie.slots, dtype=torch.bool, device=next(iter(masks.values())).device)
            for place in tie.weights:
                rows = masks[place.parameter].movedim(place.axis, 0).flatten(1).any(1)
                alive[place.slots[rows.cpu()[place.channels]].to(alive.device)] = True
            found[name] = alive
        return found

    def means(self, name: str, scores: Mapping[str, Tensor]) -> Tensor:
        """The mean score of the weights of each slot of a tie."""
        tie = dict(self._named())[name]
        sums: Any = 0.0
        for place in tie.weights:
            score = scores[place.parameter]
            rows = score.movedim(place.axis, 0).flatten(1).sum(1, dtype=torch.promote_types(score.dtype, torch.float32))
            slots, channels = place.slots.to(rows.device), place.channels.to(rows.device)
            sums = sums + torch.zeros(tie.slots, dtype=rows.dtype, device=rows.device).index_add(
                0, slots, rows[channels]
            )
        return sums / tie.size  # type: ignore[no-any-return]

    def spread(self, slots: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Masks of these tensors, in which what belongs to no living slot of a tie is dead."""
        found = {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in tensors.items()}
        for name, tie in self._named():
            for place in (*tie.weights, *tie.vectors):
                if place.parameter in found:
                    mask = found[place.parameter].movedim(place.axis, 0)
                    dead = place.channels[~slots[name].cpu()[place.slots]]
                    mask[dead.to(mask.device)] = False
        return found

    @property
    def vectors(self) -> list[str]:
        """Names of the parameters that die with the channels and are not counted."""
        return list(dict.fromkeys(place.parameter for _, tie in self._named() for place in tie.vectors))

    def _named(self) -> Iterator[tuple[str, Tie]]:
        return ((f"channels {index}", tie) for index, tie in enumerate(self.ties or ()))


def tied(units: TiedChannels, parameters: Mapping[str, Tensor], look: Any) -> TiedChannels:
    """Find what goes together, if it is not known yet, on one batch that ``look`` gives.

    Raises:
        SparsityError: if there is no batch, or no channel can die.
    """
    if units.ties is not None:
        return units
    if look is None:
        raise SparsityError(
            "granularity='tied_channels' follows a batch through the network: give attach() batches=[batch] and loss_fn=..."
        )
    context: AbstractContextManager[Any] = look(1)
    with context as network:
        groups = channel_groups(network.model, network.batches[0], network.loss)
        ties = [tie for group in groups if not group.obstacle for tie in _ties(network.model, group, parameters)]
    if not ties:
        raise SparsityError(
            "granularity='tied_channels' finds no channel that could be removed: every group of channels is an output, is "
            "mixed by a LayerNorm or attention, or has a layer that exclude= leaves out; write granularity='channels'"
        )
    return TiedChannels(tuple(ties))


def _ties(model: nn.Module, group: ChannelGroup, parameters: Mapping[str, Tensor]) -> Iterator[Tie]:
    """A group as ties: usually one, more where slots pass through different layers."""
    weights, vectors, sizes = [], [], torch.zeros(group.size, dtype=torch.long)
    modules = dict(model.named_modules())
    for member in group.members:
        module: Any = modules.get(member.name)
        if member.role == "reads" or module is None:
            continue
        kept = {
            f"{member.name}.{leaf}".lstrip("."): value
            for leaf, value in module._parameters.items()
            if value is not None
        }
        for name, value in kept.items():
            if name.endswith("weight") and not isinstance(module, _NormBase | nn.PReLU):
                if name not in parameters:
                    return  # it stays, and so must the others
                axis = output_axis(module)
                if axis is None:
                    return
                weights.append(Place(name, axis, member.slots, member.channels))
                sizes.index_add_(0, member.slots, torch.full_like(member.slots, value.numel() // value.shape[axis]))
            elif isinstance(module, _NormBase) or name.endswith("bias"):
                vectors.append(Place(name, 0, member.slots, member.channels))
    for size in sorted(set(sizes.tolist())):
        chosen = sizes == size
        if size:
            number = chosen.cumsum(0) - 1
            yield Tie(
                int(chosen.sum()), size, *(tuple(_among(places, chosen, number)) for places in (weights, vectors))
            )


def _among(places: Sequence[Place], chosen: Tensor, number: Tensor) -> Iterator[Place]:
    for place in places:
        mine = chosen[place.slots]
        if mine.any():
            yield Place(place.parameter, place.axis, number[place.slots[mine]], place.channels[mine])
