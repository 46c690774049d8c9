"""Images whose pixels are in another order: what a network finds in them owes nothing to which are neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_sparse.data.datasets import Batch, Images, indices_on


class Permuted(Images):
    """Images with their pixels moved to other places, the same for every image, channel and split.

    Example:
        >>> from lightning_sparse.data.datasets import InMemory
        >>> images = InMemory(torch.arange(4.0).view(1, 1, 2, 2), torch.tensor([7]), 4.0)
        >>> Permuted(images, torch.tensor([3, 2, 1, 0]))[[0]][0].flatten().tolist()
        [0.75, 0.5, 0.25, 0.0]
    """

    def __init__(self, images: Images, order: Tensor) -> None:
        self.images, self.order, self.labels = images, order, images.labels
        self.truth = {name: self._moved(mask) for name, mask in images.truth.items()}

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        images, _ = self.images[indices]
        return self._moved(images), self.labels[indices_on(indices, self.labels.device)]

    def subset(self, indices: Tensor) -> Permuted:
        """Keep only some images."""
        return Permuted(self.images.subset(indices), self.order)

    def _moved(self, pixels: Tensor) -> Tensor:
        return pixels.flatten(-2)[..., self.order].view(pixels.shape)


def order_of(pixels: int, seed: int) -> Tensor:
    """Where each pixel comes from, (pixels,)."""
    return torch.randperm(pixels, generator=torch.Generator().manual_seed(seed))
