"""Image data in [0, 1] with fixed, disjoint splits: the bundled digits, and torchvision's data sets from a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from lightning_sparse.data.checks import (
    check_images,
    check_labels,
    check_root,
    check_shape,
    check_statistics,
)
from lightning_sparse.data.datasets import Images, InMemory, stratified_split
from lightning_sparse.data.fixed_splits import FixedSplits
from lightning_sparse.data.permuted import Permuted, order_of
from lightning_sparse.errors import SparsityError, check_choice, check_flag, check_share
from lightning_sparse.extras import need


class ImageData(FixedSplits):
    """One image classification data set, as a Lightning data module.

    It gives images as floats in [0, 1], shape (n, channels, height, width): normalisation belongs to the model, so that an
    attack's eps is in units of pixels. The test split is the data set's own where it has one; validation is cut from the
    training split, stratified, by ``split_seed``. The order of training depends on ``shuffle_seed`` and the epoch alone.
    ``label_noise`` plants wrong labels among the images that are trained on; validation and test images keep theirs.

    Args:
        name: ``"digits"`` (scikit-learn's, bundled), ``"planted"`` (the same in larger images, see
            :mod:`lightning_sparse.data.planted_digits`), ``"mnist"``, ``"fashion_mnist"``, ``"cifar10"``, ``"cifar100"`` (its
            fine labels), ``"svhn"`` (without the extra images; needs scipy) or ``"folder"``
            (``root/train/<class>/*`` and ``root/test/<class>/*``). Images of a folder are turned as their EXIF orientation
            says, transparent pixels are drawn on white, and grey levels of 16 bits are kept; hidden files and folders are
            left out, with a warning that names them. Images that fit in a quarter of the memory (a container's, where
            it has a limit) are decoded once, and kept in ``root/.lightning_sparse`` until a file changes; remove it whenever
            you like.
        shape: (channels, height, width) of an image; for ``"folder"``, what images are resized and cropped to, with 1 channel
            (grey) or 3 (colour).
        classes: number of classes, at least 2; each needs images in every split.
        mean: mean of each channel, or one for all, in [0, 1], for a model that normalises.
        std: standard deviation of each channel, or one for all, in [1e-6, 1], likewise.
        shortcut: for ``"planted"``, the share of the training images that carry a shortcut, in [0, 1].
        label_noise: share of the training images whose label is drawn anew by ``split_seed``, uniformly over all classes, in
            [0, 1]: at 1.0 labels are random. See :meth:`wrong_labels`.
        images: how many images to train on, a stratified sample by ``split_seed``; None is all. Validation and test images
            stay the same.
        permute_pixels: whether the pixels of all images change places, by ``split_seed``: neighbours then mean nothing.
        root: folder of the files, in which ``~`` is the home folder; not read for digits and planted.
        download: whether torchvision may fetch what is missing in ``root``.
        batch_size: images per training batch.
        validation: share of the training split kept for validation, in (0, 1).
        split_seed: seed of the splits, 0 to 2**32 - 1; None is 0.
        shuffle_seed: seed of the training order, likewise.
        num_workers: worker processes of each loader; images held in memory need none.

    Raises:
        SparsityError: at once if an argument is out of range or the folder does not exist; in ``setup``, before any training,
            if a file is missing, broken, or cannot be read rightly, which names it; if the data have another shape or other
            classes; or if all pixels of a split are equal.

    Example:
        >>> data = ImageData("digits", shape=(1, 8, 8), classes=10, mean=[0.31], std=[0.38])
        >>> data.setup("fit")
        >>> images, labels = next(iter(data.train_dataloader()))
        >>> images.shape, float(images.min()), float(images.max())
        (torch.Size([128, 1, 8, 8]), 0.0, 1.0)
    """

    def __init__(
        self,
        name: str,
        *,
        shape: Sequence[int],
        classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        shortcut: float = 0.0,
        label_noise: float = 0.0,
        images: int | None = None,
        permute_pixels: bool = False,
        root: str | Path | None = None,
        download: bool = False,
        batch_size: int = 128,
        validation: float = 0.1,
        split_seed: int = 0,
        shuffle_seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        self.kind = check_choice("data name", name, _LOADERS)
        self.shape = check_shape(name, shape, _CHANNELS[name])
        super().__init__(
            classes=classes,
            label_noise=label_noise,
            most=images,
            batch_size=batch_size,
            validation=validation,
            split_seed=split_seed,
            shuffle_seed=shuffle_seed,
            num_workers=num_workers,
        )
        self.mean, self.std = check_statistics(mean, std, self.shape[0])
        self.shortcut = check_share("shortcut", shortcut)
        if shortcut and name != "planted":
            raise SparsityError(f"shortcut={shortcut!r} is only for planted, not for {name}: leave it out")
        self.permute_pixels = check_flag("permute_pixels", permute_pixels)
        self.download = check_flag("download", download)
        self.root = check_root(name, root, self.download, bundled=name in _BUNDLED)

    def setup(self, stage: str = "fit") -> None:
        """Load the images and cut the splits, once."""
        if self._splits:
            return
        train, test = _LOADERS[self.kind](self)
        kind = self.kind if self.root is None else f"{self.kind} in {str(self.root)!r}"
        for name, images in (("training", train), ("test", test)):
            check_images(f"the {name} split of {kind}", images, self.shape)
        check_labels(kind, train.labels, test.labels, self.classes)
        if self.permute_pixels:
            order = order_of(self.shape[1] * self.shape[2], self.split_seed)
            train, test = Permuted(train, order), Permuted(test, order)
        kept, held_out = self.cut(train.labels)
        self.hold(train.subset(kept), train.subset(held_out), test)


def _digits(data: ImageData) -> tuple[Images, Images]:
    bunch = need("sklearn.datasets").load_digits()
    everything = InMemory(torch.tensor(bunch.images).float().unsqueeze(1), torch.tensor(bunch.target), 16.0)
    train, test = stratified_split(everything.labels, 0.2, data.split_seed)
    return everything.subset(train), everything.subset(test)


def _planted(data: ImageData) -> tuple[Images, Images]:
    from lightning_sparse.data.planted_digits import planted

    train, test = (
        InMemory(part.images, part.labels, 1.0, part.truth) for part in planted(data.split_seed, data.shortcut)
    )
    return train, test


def _published(data: ImageData) -> tuple[Images, Images]:
    from lightning_sparse.data.published import published

    assert data.root is not None
    return published(data.kind, data.root, download=data.download)


def _folder(data: ImageData) -> tuple[Images, Images]:
    need("torchvision")
    from lightning_sparse.data.image_folder import image_folder

    assert data.root is not None
    return image_folder(data.root, data.shape)


_BUNDLED = ("digits", "planted")
_LOADERS: dict[str, Callable[[ImageData], tuple[Images, Images]]] = {
    "digits": _digits,
    "planted": _planted,
    "mnist": _published,
    "fashion_mnist": _published,
    "cifar10": _published,
    "cifar100": _published,
    "svhn": _published,
    "folder": _folder,
}
_COLOUR = ("cifar10", "cifar100", "svhn")
_CHANNELS = {name: (3,) if name in _COLOUR else (1,) for name in _LOADERS} | {"folder": (1, 3)}
