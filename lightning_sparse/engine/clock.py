"""The steps of training that were really taken, counted without waiting for a device."""

from __future__ import annotations

from torch import Tensor


class Clock:
    """Counts optimizer steps; what a GradScaler says of skipped ones is read only when the exact number is asked for.

    Example:
        >>> import torch
        >>> clock = Clock()
        >>> clock.count()
        >>> clock.count(torch.tensor(1.0))
        >>> clock.latest, clock.steps
        (2, 1)
    """

    def __init__(self) -> None:
        self.start_at(0)

    def start_at(self, step: int) -> None:
        """Go on from a step."""
        self._taken, self._unsure = step, 0
        self._skipped: Tensor | float = 0.0

    def count(self, skipped: Tensor | None = None) -> None:
        """Count a step, of which a tensor of 0 or more may say that it was skipped."""
        if skipped is None:
            self._taken += 1
        else:
            self._unsure += 1
            self._skipped = self._skipped + skipped.clamp(max=1.0)

    @property
    def latest(self) -> int:
        """The most steps that may have been taken."""
        return self._taken + self._unsure

    @property
    def steps(self) -> int:
        """Steps taken; waits for the device where one may have been skipped."""
        if self._unsure:
            self.start_at(self._taken + self._unsure - round(float(self._skipped)))
        return self._taken
