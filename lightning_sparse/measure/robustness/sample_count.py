"""How much an attack costs: images that went through the classifier, whoever sent them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class Samples:
    """A count of images.

    Attributes:
        count: images counted so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._last = 0

    def since(self) -> int:
        """Give the images counted since this was last asked."""
        new, self._last = self.count - self._last, self.count
        return new


@contextmanager
def counted(classifier: nn.Module) -> Iterator[Samples]:
    """Count the images that go through ``classifier`` inside this context, those of other libraries' attacks too.

    Args:
        classifier: the module that is called; a forward with gradients counts as one without.

    Yields:
        The running count.

    Example:
        >>> import torch
        >>> model = nn.Flatten()
        >>> with counted(model) as samples:
        ...     _ = model(torch.rand(5, 1, 2, 2)), model(torch.rand(2, 1, 2, 2))
        >>> samples.count
        7
    """
    samples = Samples()

    def add(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        pixels: Tensor = inputs[0]
        samples.count += len(pixels)

    handle = classifier.register_forward_pre_hook(add)
    try:
        yield samples
    finally:
        handle.remove()
