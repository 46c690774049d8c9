"""The cost of an attack: how many images go through the classifier."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class Samples:
    """A running count of images."""

    def __init__(self) -> None:
        self.count = 0
        self._last = 0

    def since(self) -> int:
        """Give the images counted since this was last called."""
        new, self._last = self.count - self._last, self.count
        return new


@contextmanager
def counted(classifier: nn.Module) -> Iterator[Samples]:
    """Count the images that go through ``classifier``, with gradients or without, also in the attacks of torchattacks."""
    samples = Samples()

    def add(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        pixels: Tensor = inputs[0]
        samples.count += len(pixels)

    handle = classifier.register_forward_pre_hook(add)
    try:
        yield samples
    finally:
        handle.remove()
