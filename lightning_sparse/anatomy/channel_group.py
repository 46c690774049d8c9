"""Channels that can only be removed together, and the layers that they pass through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Role = Literal["writes", "reads", "each"]


@dataclass(frozen=True)
class Member:
    """A layer with channels in a group.

    Attributes:
        name: of the module, or of a parameter that stands by itself.
        role: ``"writes"`` (the channels are its outputs), ``"reads"`` (its inputs) or ``"each"`` (it works on each channel
            alone: BatchNorm, a depthwise convolution).
        slots: the places in the group, one for each entry of ``channels``.
        channels: the layer's own numbers of its inputs or outputs in these places.
    """

    name: str
    role: Role
    slots: Tensor
    channels: Tensor


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that can only be removed together, slot by slot.

    Attributes:
        size: number of slots.
        members: every layer that they pass through.
        obstacle: why slots of this group cannot be removed; empty if they can.
    """

    size: int
    members: tuple[Member, ...]
    obstacle: str = ""

    def having(self, role: Role) -> list[Member]:
        """The members in one role."""
        return [member for member in self.members if member.role == role]
