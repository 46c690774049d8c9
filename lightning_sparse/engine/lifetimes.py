"""How long each connection has lived."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_sparse.engine.masks import pack_bits, unpack_bits
from lightning_sparse.engine.selection import count_true

# The smallest of these that can number all updates that bore connections.
_WIDTHS = (torch.int8, torch.int16, torch.int32)


class Lifetimes:
    """Follows masks through a training, and tells how old the living connections are and which have ever lived.

    A connection is born when its mask turns True; one that dies and is born again is a new one. Cost: one byte a weight on
    the masks' device for up to 126 updates in which connections were born (two for up to 32,766, then four), and a few
    passes over them at each update.

    Example:
        >>> lifetimes = Lifetimes()
        >>> lifetimes.update({"w": torch.tensor([True, True, False, False])}, step=0)
        >>> lifetimes.update({"w": torch.tensor([True, False, True, False])}, step=100)
        >>> lifetimes.ages(150)
        {150: 1, 50: 1}
        >>> lifetimes.survivors, lifetimes.ever_lived, lifetimes.total
        (1, 3, 4)
    """

    def __init__(self) -> None:
        # For each weight: the number of its birth (from 1, in _steps); 0 if it has never lived; -1 if it has died.
        self._born: dict[str, Tensor] = {}
        self._steps: list[int] = []
        self._living: list[int] = []  # of each birth
        self._ever = 0

    @torch.no_grad()
    def update(self, masks: Mapping[str, Tensor], step: int) -> None:
        """Take in the masks, always of the same parameters, as the update after optimizer step ``step`` left them."""
        this = len(self._steps) + 1
        width = _width(this)
        living = torch.tensor([0, *self._living, 0])
        for name, mask in masks.items():
            born = self._born.get(name)
            if born is None:  # row by row, however the mask lies in memory
                born = torch.zeros(mask.shape, dtype=width, device=mask.device)
            born = born.to(mask.device, width)
            self._born[name], flat = born, born.view(-1)
            moved = (mask != (born > 0)).reshape(-1).nonzero().view(-1)
            was = flat[moved]
            flat[moved] = torch.where(was > 0, -1, this).to(width)
            living -= torch.bincount(was.clamp(min=0), minlength=this + 1).cpu()
            living[this] += count_true(was <= 0)
            self._ever += count_true(was == 0)
        self._steps, self._living = [*self._steps, step], living[1:].tolist()
        if not self._living[-1] and this > 1:  # nothing was born: the number can be used again
            del self._steps[-1], self._living[-1]

    def ages(self, step: int) -> dict[int, int]:
        """How many living connections there are of each age in optimizer steps, as of ``step``; the oldest first."""
        counts: dict[int, int] = {}
        for born, living in zip(self._steps, self._living, strict=True):
            if living:
                counts[step - born] = counts.get(step - born, 0) + living
        return counts

    @property
    def survivors(self) -> int:
        """How many have lived ever since the first masks."""
        return self._living[0] if self._living else 0

    @property
    def ever_lived(self) -> int:
        """How many connections live or have lived: the explored ones of Liu et al. 2021 (arXiv 2102.02887)."""
        return self._ever

    @property
    def total(self) -> int:
        """How many connections there are."""
        return sum(born.numel() for born in self._born.values())

    def state_dict(self) -> dict[str, Any]:
        """As few bits a weight as the number of births needs, loadable with ``weights_only=True``."""
        bits = (len(self._steps) + 1).bit_length()
        born = {name: [pack_bits((born + 1 >> bit) & 1) for bit in range(bits)] for name, born in self._born.items()}
        return {"born": born, "steps": list(self._steps), "living": list(self._living), "ever": self._ever}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._steps, self._living, self._ever = list(state["steps"]), list(state["living"]), state["ever"]
        self._born, width = {}, _width(len(self._steps))
        for name, planes in state["born"].items():
            bits = torch.stack([unpack_bits(plane).to(width) << bit for bit, plane in enumerate(planes)])
            self._born[name] = bits.sum(0, dtype=width) - 1


def _width(births: int) -> torch.dtype:
    return next(width for width in _WIDTHS if births < torch.iinfo(width).max)


def mean_age(ages: Mapping[int, int]) -> float:
    """Mean age in optimizer steps, from how many connections there are of each age.

    Example:
        >>> mean_age({150: 1, 50: 3})
        75.0
    """
    return sum(age * count for age, count in ages.items()) / sum(ages.values())


def median_age(ages: Mapping[int, int]) -> float:
    """Median age likewise; of an even number, the mean of the middle two.

    Example:
        >>> median_age({150: 1, 50: 3}), median_age({150: 2, 50: 2})
        (50.0, 100.0)
    """
    count, below, middle = sum(ages.values()), 0, []
    for age, living in sorted(ages.items()):
        middle += [age] * sum(below <= place < below + living for place in ((count - 1) // 2, count // 2))
        below += living
    return sum(middle) / 2
