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
    """

    def __init__(self, masks: Masks, parameters: Mapping[str, Tensor]) -> None:
        self._masks, self._parameters = masks, dict(parameters)
        self._ready: list[tuple[Tensor, int, Any, Any]] = []
        self._changes = -1
        self._versions: list[int] = []

    def zero_dead(self) -> None:
        """Zero the dead weights: one pass, about the cost of a copy."""
        if self._changes != self._masks.changes or self._replaced():
            self._ready = [
                (weight, weight.data_ptr(), *self._masks.pair(name, weight))
                for name, weight in self._parameters.items()
            ]
            self._changes = self._masks.changes
        for _, _, view, words in self._ready:
            view &= words
        self._versions = [weight._version for weight, _, _, _ in self._ready]

    def moved(self) -> bool:
        """Whether anything has written to a weight since: torch counts writes, so this costs next to nothing.

        A write through ``.data`` is not counted by torch and goes unnoticed here.
        """
        if not self._versions:
            return False
        return [weight._version for weight, _, _, _ in self._ready] != self._versions or self._replaced()

    def _replaced(self) -> bool:
        """Whether a weight has other storage than before, as after ``weight.data = ...``."""
        return any([weight.data_ptr() != place for weight, place, _, _ in self._ready])  # a list: half the time
