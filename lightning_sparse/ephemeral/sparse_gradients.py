"""Backward passes in which few of a layer's outputs have a gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from lightning_sparse.ephemeral.hook import Hook


def largest(gradient: Tensor, count: int) -> Tensor:
    """Keep the ``count`` entries of largest magnitude in each row of the last dimension, and zero the others.

    Example:
        >>> largest(torch.tensor([[1.0, -3.0, 2.0], [0.0, 0.5, 0.1]]), 1).tolist()
        [[0.0, -3.0, 0.0], [0.0, 0.5, 0.0]]
    """
    if count >= gradient.shape[-1]:
        return gradient
    places = gradient.abs().topk(count, -1, sorted=False).indices
    return torch.zeros_like(gradient).scatter_(-1, places, gradient.gather(-1, places))


class ThinnedGradients:
    """Zeroes all but the largest entries of the gradients of layers' outputs, example by example, in training mode.

    The entries of one example compete: of a Linear layer those at one position (of a sequence), of a convolution all channels
    and positions. Weights, biases and the layers before get their gradients from what is left (meProp: Sun et al. 2017).

    Args:
        layers: whose outputs are meant; before any of them is compiled.
        count: from how many entries there are to how many are kept.

    Attributes:
        active: False lets every gradient through.

    Example:
        >>> layer = nn.Linear(1, 3, bias=False)
        >>> gradients = ThinnedGradients([layer], lambda entries: 1)
        >>> (layer(torch.ones(2, 1)) * torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]])).sum().backward()
        >>> layer.weight.grad.flatten().tolist()
        [0.0, 2.0, 3.0]
    """

    def __init__(self, layers: Iterable[nn.Module], count: Callable[[int], int]) -> None:
        self.active = True
        self._count = count
        self._handles = [layer.register_forward_hook(Hook(self.watch)) for layer in layers]

    def detach(self) -> None:
        """Remove every hook."""
        for handle in self._handles:
            handle.remove()

    def watch(self, layer: nn.Module, inputs: object, output: Tensor) -> None:
        """Thin out the gradient that will come to an output."""
        if self.active and layer.training and output.requires_grad:
            by_position = output.shape[-1] if isinstance(layer, nn.Linear) else output[0].numel()
            count = self._count(by_position)
            output.register_hook(lambda gradient: largest(gradient.reshape(-1, by_position), count).view_as(gradient))  # type: ignore[no-untyped-call]
