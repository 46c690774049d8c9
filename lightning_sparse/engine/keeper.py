"""Zeroing the dead weights after every step, as cheaply as it can be done, and noticing who else has moved weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightning_sparse.engine.masks import Masks


class Keeper:
    """Zeroes the dead weights of some parameters again and again, with everything looked up beforehand.

    Args:
        masks: the masks, which may change.
        parameters: the parameters, by name.
        versions: how many writes torch had counted to each parameter when its dead were zeroed the last time, by whichever of
            several keepers.
    """

    def __init__(self, masks: Masks, parameters: Mapping[str, Tensor], versions: dict[str, int]) -> None:
        self._masks, self._parameters, self._versions = masks, dict(parameters), versions
        self._ready: list[tuple[str, Tensor, int, Any, Any]] = []
        self._changes = -1

    def zero_dead(self) -> None:
        """Zero the dead weights: one pass, about the cost of a copy."""
        if self._changes != self._masks.changes:
            self.mark()
        for name, weight, place, view, words in self._ready:
            if weight.data_ptr() != place:  # it has other storage than before, as after ``weight.data = ...``
                self.mark()
                return self.zero_dead()
            view &= words
            self._versions[name] = weight._version
        return None

    def mark(self) -> None:
        """Take the weights as they are now for those that nothing else has moved."""
        self._ready = [
            (name, weight, weight.data_ptr(), *self._masks.pair(name, weight))
            for name, weight in self._parameters.items()
        ]
        self._changes = self._masks.changes
        self._versions |= {name: weight._version for name, weight in self._parameters.items()}

    def moved(self) -> bool:
        """Whether anything has written to a weight since: torch counts writes, so this costs next to nothing.

        A write through ``.data`` is not counted by torch and goes unnoticed here.
        """
        return any([self._versions[name] != weight._version for name, weight, *_ in self._ready])
