"""Train on images that are shifted, mirrored, cut out and otherwise changed at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_sparse.callbacks.adversarial_training import AdversarialTraining
from lightning_sparse.callbacks.changes_images import ChangesImages
from lightning_sparse.callbacks.trainer.attack_mode import seeded
from lightning_sparse.errors import SparsityError, as_list, check_count, check_share


class Augmentation(ChangesImages):
    """Augment the images of training batches, on the device they are on, on any Trainer and beside any other callback.

    Validation, test, and whatever measures or scores images see them as they are: the batch points to the augmented images
    for the length of its training step. Every image has draws of its own, which are a function of seed, epoch, batch and
    rank, so that a resumed run goes on bit for bit and each device draws its own. Beside ``AdversarialTraining`` it comes
    first: the augmented images are attacked.

    In this order, each image is shifted by up to ``pad`` pixels each way, onto zeros (a random crop of the padded image; He
    et al. 2016, arXiv 1512.03385), and mirrored with probability ``flip``; it goes through ``transform``; a square of
    ``cutout`` pixels anywhere on it, also across its edge, is filled with ``fill`` (DeVries & Taylor 2017, arXiv 1708.04552).

    *Cost.* torchvision draws once for a whole batch, so each image is given to ``transform`` alone. What every training
    needs is done here for the batch at once: of 128 images of 3x32x32 on one CPU core, shifts and mirrors take 1 ms, where
    torchvision's take 16 ms image by image, and its RandAugment 42 ms.

    Args:
        pad: pixels, 0 or more, fewer than an image has in either direction.
        flip: probability, in [0, 1]: 0 for digits and letters, which mean nothing in a mirror.
        cutout: side of the square, in pixels; 0 for none.
        fill: what it is filled with: a number, or one for each channel. For a model that normalises the mean is its zero.
        transform: of one image (channels, height, width), floats in [0, 1], to one of the same shape, such as
            ``torchvision.transforms.v2.RandAugment()``. It may draw from torch's random numbers.
        images: where the images are in a batch: the index in a tuple or list, or the key of a dict.
        seed: of all draws.

    Raises:
        SparsityError: on arguments out of range; before training, on a data module of texts; at the first batch of an epoch,
            on what are no images (n, channels, height, width), or, with a ``transform``, not in [0, 1].

    Example:
        >>> from lightning_sparse import GradualPruning
        >>> callbacks = [Augmentation(pad=4, flip=0.5), GradualPruning(0.9)]
    """

    names = ("pad", "flip", "cutout", "fill", "seed")
    stream = (1,)
    done = "augmented"

    def __init__(
        self,
        *,
        pad: int = 0,
        flip: float = 0.0,
        cutout: int = 0,
        fill: float | Sequence[float] = 0.0,
        transform: nn.Module | None = None,
        images: int | str = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(images, seed)
        self.pad, self.cutout = check_count("pad", pad, 0, write=4), check_count("cutout", cutout, 0, write=16)
        self.flip, self.fill = check_share("flip", flip), _numbers(fill)
        if transform is not None and not isinstance(transform, nn.Module):
            raise SparsityError(
                f"transform={transform!r:.100} is no transform of torchvision.transforms.v2: write v2.RandAugment(), or "
                "v2.Compose([...]) for several"
            )
        self.transform = transform

    def state_dict(self) -> dict[str, Any]:
        """The arguments that the images depend on, the transform in words."""
        return super().state_dict() | {"transform": repr(self.transform)}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse texts, and to come after an attack."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        if getattr(getattr(trainer, "datamodule", None), "inputs", "pixels") == "tokens":
            raise SparsityError("texts cannot be shifted and mirrored: leave Augmentation out (augment=none)")
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        if any(isinstance(callback, AdversarialTraining) for callback in callbacks[: callbacks.index(self)]):
            raise SparsityError(
                "AdversarialTraining comes before Augmentation, whose images the network would see unattacked: write "
                "callbacks=[Augmentation(...), AdversarialTraining(...)]"
            )

    def change(self, trainer: Trainer, module: LightningModule, batch: Any, images: Tensor, batch_idx: int) -> Tensor:
        """Augment the images."""
        if batch_idx == 0 and len(images):
            self._check(images)
        draws = self.draws(trainer, batch_idx)
        numbers = np.random.default_rng(draws)
        changed = shifted(images.detach(), self.pad, self.flip, numbers)
        if self.transform is not None:
            with seeded(images.device, draws):
                changed = self._transformed(changed)
        if self.cutout:
            changed = cut_out(changed, self.cutout, self.fill, numbers)
        # With the strides of the images themselves: compiled steps are guarded by them.
        return torch.empty_like(images).copy_(changed)

    def _transformed(self, images: Tensor) -> Tensor:
        assert self.transform is not None
        found = [self.transform(image) for image in images.float()]
        for one in found:
            if not isinstance(one, Tensor) or one.shape != images.shape[1:]:
                got = f"an image of shape {tuple(one.shape)}" if isinstance(one, Tensor) else f"a {type(one).__name__}"
                raise SparsityError(
                    f"transform={type(self.transform).__name__} made {got} of one of shape {tuple(images.shape[1:])}: write "
                    "one that keeps the shape"
                )
        return torch.stack(found) if found else images

    def _check(self, images: Tensor) -> None:
        if images.dim() != 4 or not images.is_floating_point():
            raise SparsityError(
                f"a batch holds {images.dtype} of shape {tuple(images.shape)}, no images (n, channels, height, width) of "
                "floats: write images= for where they are in it, or leave Augmentation out (augment=none)"
            )
        if self.pad >= min(images.shape[2:]):
            raise SparsityError(
                f"pad={self.pad} would shift images of {images.shape[2]}x{images.shape[3]} out of sight: write pad=1"
            )
        if len(self.fill) not in (1, images.shape[1]):
            raise SparsityError(
                f"fill holds {len(self.fill)} numbers, and images have {images.shape[1]} channels: write one for each"
            )
        low, high = float(images.min()), float(images.max())
        if self.transform is not None and not 0.0 <= low <= high <= 1.0:
            raise SparsityError(
                f"transform={type(self.transform).__name__} takes pixels in [0, 1], and images lie in [{low:g}, {high:g}]: "
                "normalise inside the model, or leave the transform out"
            )


def shifted(images: Tensor, pad: int, flip: float, numbers: np.random.Generator) -> Tensor:
    """Shift images (n, channels, height, width) by up to ``pad`` pixels each way, and mirror a share of them.

    Example:
        >>> shifted(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), 0, 1.0, np.random.default_rng(0))
        tensor([[[[2., 1.],
                  [4., 3.]]]])
    """
    count, channels, height, width = images.shape
    top, left = numbers.integers(0, 2 * pad + 1, (2, count, 1))
    mirrored = numbers.random((count, 1)) < flip
    rows = top + np.arange(height)
    columns = left + np.where(mirrored, np.arange(width)[::-1], np.arange(width))
    places = torch.from_numpy(rows[:, :, None] * (width + 2 * pad) + columns[:, None, :]).to(images.device)
    padded = F.pad(images, (pad,) * 4).flatten(2)
    return padded.gather(2, places.flatten(1)[:, None].expand(-1, channels, -1)).view(images.shape)


def cut_out(images: Tensor, side: int, fill: Sequence[float], numbers: np.random.Generator) -> Tensor:
    """Fill a square of each image whose middle is any of its pixels: the part of it that lies on the image.

    Example:
        >>> cut_out(torch.ones(1, 1, 3, 3), 3, [0.0], np.random.default_rng(2))
        tensor([[[[1., 1., 1.],
                  [0., 0., 1.],
                  [0., 0., 1.]]]])
    """
    count, _, height, width = images.shape

    def inside(length: int) -> Tensor:
        first = numbers.integers(0, length, (count, 1)) - side // 2
        places = np.arange(length)
        return torch.from_numpy((places >= first) & (places < first + side)).to(images.device)

    hole = inside(height)[:, None, :, None] & inside(width)[:, None, None, :]
    return torch.where(hole, images.new_tensor(fill).view(-1, 1, 1), images)


def _numbers(fill: Any) -> list[float]:
    listed = [fill] if isinstance(fill, int | float) else as_list(fill)
    if not listed or not all(isinstance(one, int | float) and not isinstance(one, bool) for one in listed):
        raise SparsityError(f"fill={fill!r} is neither a number nor a list of one for each channel: write fill=0.5")
    if not all(np.isfinite(one) for one in listed):
        raise SparsityError(f"fill={fill!r} is not finite: write fill=0.5")
    return [float(one) for one in listed]
