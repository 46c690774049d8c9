"""Images that were normalised outside of the model: the pixels that they were, and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.classifier import check_channels, check_normalisation

_SLACK = (
    1e-3  # a quarter of a grey level of 8 bits: what rounded statistics in place of the exact ones may move a pixel by
)


class Normalisation:
    """``(pixels - mean) / std``, per channel, and its inverse; with neither it changes nothing.

    Args:
        mean: per channel, what was subtracted from the pixels.
        std: per channel, > 0, what divided them after that.

    Raises:
        SparsityError: if the two do not fit.

    Example:
        >>> loader = Normalisation(mean=[0.5], std=[0.25])
        >>> loader.pixels(torch.tensor([-2.0, 0.0, 2.0]).view(1, 1, 1, 3)).flatten().tolist()
        [0.0, 0.5, 1.0]
    """

    def __init__(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        self._mean, self._std = check_normalisation(mean, std)

    def __bool__(self) -> bool:
        return self._mean is not None or self._std is not None

    def numbers(self, name: str) -> list[float] | None:
        """Give ``"mean"`` or ``"std"`` as a list."""
        statistic: Tensor | None = {"mean": self._mean, "std": self._std}[name]
        return None if statistic is None else statistic.tolist()

    def check(self, images: Tensor) -> None:
        """Refuse images (n, C, H, W) that were not normalised like this.

        Raises:
            SparsityError: if they have other channels, if they give pixels further from [0, 1] than rounding can explain, or
                if they are pixels already.
        """
        if not self or not images.is_floating_point() or not len(images):
            return
        check_channels(images, mean=self._mean, std=self._std)
        said = f"std={self.numbers('std')} and mean={self.numbers('mean')}"
        if (
            self._mean is not None
            and bool((self._mean > 0).any())
            and 0 <= float(images.min()) <= float(images.max()) <= 1
        ):
            raise SparsityError(
                f"images lie in [0, 1], so they are pixels, and {said} say that they were normalised: leave mean and std "
                "out, or give the images as the module takes them"
            )
        pixels = self._unclipped(images)
        low, high = float(pixels.min()), float(pixels.max())
        slack = max(_SLACK, 4 * torch.finfo(images.dtype).eps)
        if not (low >= -slack and high <= 1 + slack):
            raise SparsityError(
                f"images normalised with {said} were pixels in [{low:g}, {high:g}], not in [0, 1]: give the mean and std "
                "that the loader normalises with, in units of [0, 1] pixels"
            )

    def pixels(self, images: Tensor) -> Tensor:
        """Recover the pixels (n, C, H, W) in [0, 1] of normalised images."""
        return self._unclipped(images).clamp(0, 1) if self else images

    def _unclipped(self, images: Tensor) -> Tensor:
        scaled = images if self._std is None else images * _on(self._std, images)
        return scaled if self._mean is None else scaled + _on(self._mean, images)

    def normalised(self, pixels: Tensor) -> Tensor:
        """Normalise pixels (n, C, H, W) again; gradients go through."""
        shifted = pixels if self._mean is None else pixels - _on(self._mean, pixels)
        return shifted if self._std is None else shifted / _on(self._std, pixels)


def _on(statistic: Tensor, images: Tensor) -> Tensor:
    return statistic.view(1, -1, 1, 1).to(images.device, images.dtype)
