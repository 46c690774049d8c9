"""Image data in [0, 1] with fixed, disjoint splits: the bundled digits, and torchvision's data sets from a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from lightning_sparse.data.checks import (
    as_integer,
    check_images,
    check_labels,
    check_root,
    check_shape,
    check_statistics,
    check_validation,
)
from lightning_sparse.data.datasets import Batch, EpochShuffle, Images, InMemory, stratified_split
from lightning_sparse.data.label_noise import noisy_labels
from lightning_sparse.data.permuted import Permuted, order_of
from lightning_sparse.errors import SparsityError, check_choice, check_count, check_flag, check_seed, check_share
from lightning_sparse.extras import need


class ImageData(LightningDataModule):
    """One image classification data set, as a Lightning data module.

    It gives images as floats in [0, 1], shape (n, channels, height, width): normalisation belongs to the model, so that an
    attack's eps is in units of pixels. The test split is the data set's own where it has one; validation is cut from the
    training split, stratified, by ``split_seed``. The order of training depends on ``shuffle_seed`` and the epoch alone.
    ``label_noise`` plants wrong labels among the images that are trained on; validation and test images keep theirs.

    Args:
        name: ``"digits"`` (scikit-learn's, bundled), ``"planted"`` (the same in larger images, see
            :mod:`lightning_sparse.data.planted_digits`), ``"mnist"``, ``"fashion_mnist"``, ``"cifar10"`` or ``"folder"``
            (``root/train/<class>/*`` and ``root/test/<class>/*``). Images of a folder are turned as their EXIF orientation
            says, transparent pixels are drawn on white, and grey levels of 16 bits are kept; hidden files and folders are
            left out, with a warning that names them.
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
        super().__init__()
        self.kind = check_choice("data name", name, _LOADERS)
        self.shape, self.classes = (
            check_shape(name, shape, _CHANNELS[name]),
            check_count("classes", as_integer(classes), 2),
        )
        self.mean, self.std = check_statistics(mean, std, self.shape[0])
        if not 0.0 < check_share("validation", validation) < 1.0:
            raise SparsityError(f"validation={validation} leaves an empty split: write a share such as 0.1")
        self.validation = validation
        self.shortcut = check_share("shortcut", shortcut)
        if shortcut and name != "planted":
            raise SparsityError(f"shortcut={shortcut!r} is only for planted, not for {name}: leave it out")
        self.label_noise = check_share("label_noise", label_noise)
        self.images = None if images is None else check_count("images", as_integer(images), self.classes)
        self.permute_pixels = check_flag("permute_pixels", permute_pixels)
        self.download = check_flag("download", download)
        self.root = check_root(name, root, self.download, bundled=name in _BUNDLED)
        self.batch_size = check_count("batch_size", as_integer(batch_size), write=128)
        self.split_seed = check_seed(as_integer(split_seed), "split_seed")
        self.shuffle_seed = check_seed(as_integer(shuffle_seed), "shuffle_seed")
        self.num_workers = check_count("num_workers", num_workers, 0, most=_MOST_WORKERS)
        self._splits: dict[str, Images] = {}
        self._wrong = torch.empty(0, dtype=torch.bool)

    def setup(self, stage: str = "fit") -> None:
        """Load the images and cut the splits, once."""
        if self._splits:
            return
        train, test = _LOADERS[self.kind](self)
        kind = self.kind if self.root is None else f"{self.kind} in {str(self.root)!r}"
        for name, images in (("training", train), ("test", test)):
            check_images(f"the {name} split of {kind}", images, self.shape)
        check_labels(kind, train.labels, test.labels, self.classes)
        check_validation(self.validation, len(train), self.classes)
        if self.permute_pixels:
            order = order_of(self.shape[1] * self.shape[2], self.split_seed)
            train, test = Permuted(train, order), Permuted(test, order)
        kept, held_out = stratified_split(train.labels, self.validation, self.split_seed)
        if self.images is not None and self.images < len(kept):
            kept = kept[stratified_split(train.labels[kept], self.images, self.split_seed)[1]]
        self._splits = {"train": train.subset(kept), "validation": train.subset(held_out), "test": test}
        learned = self._splits["train"]
        labels = noisy_labels(learned.labels, self.label_noise, self.classes, self.split_seed)
        self._wrong, learned.labels = labels != learned.labels, labels

    def split(self, name: str, most: int | None = None) -> Batch:
        """Return images and labels of ``"train"``, ``"validation"`` or ``"test"`` as two tensors.

        Args:
            name: the split.
            most: the largest number of images: a stratified sample by ``split_seed``, which is the same for every model.
        """
        places = self.sample(name, most)
        return self._splits[name][places]

    def sample(self, name: str, most: int | None = None) -> list[int]:
        """Return the indices of the images that :meth:`split` takes, without reading any.

        Raises:
            SparsityError: if there is no such split, or ``most`` is no number of images that holds every class.
        """
        self.setup()
        images = self._splits[check_choice("split", name, self._splits)]
        if most is None:
            return list(range(len(images)))
        if isinstance(most, bool) or not isinstance(most, int) or most < self.classes:
            raise SparsityError(
                f"{most!r} images cannot hold all {self.classes} classes: ask for at least {self.classes}, in whole numbers, "
                f"or for all {len(images)}"
            )
        if most >= len(images):
            return list(range(len(images)))
        places: list[int] = stratified_split(images.labels, most, self.split_seed)[1].tolist()
        return places

    def truth(self, name: str, most: int | None = None) -> dict[str, Tensor] | None:
        """Return which pixels are known to matter in the images of :meth:`split`, in the same order.

        Masks (n, height, width), booleans, by name: see :class:`~lightning_sparse.data.Planted`. None if they are unknown.
        """
        places = self.sample(name, most)
        truth = self._splits[name].truth
        return {mask: pixels[places] for mask, pixels in truth.items()} or None

    def wrong_labels(self, most: int | None = None) -> Tensor:
        """Return which labels of the training images are known to be wrong, because ``label_noise`` planted them.

        (n,), booleans, in the order of ``split("train", most)``. Labels that are wrong in the data set itself are unknown.

        Example:
            >>> digits = {"shape": (1, 8, 8), "classes": 10, "mean": [0.31], "std": [0.38]}
            >>> wrong = ImageData("digits", **digits, label_noise=0.2).wrong_labels()
            >>> len(wrong), int(wrong.sum())  # 259 were drawn anew
            (1293, 235)
        """
        places = self.sample("train", most)
        return self._wrong[places]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Give shuffled batches; the order depends on ``shuffle_seed`` and the epoch."""
        self.setup()
        return self._loader("train", sampler=EpochShuffle(len(self._splits["train"]), self.shuffle_seed))

    def val_dataloader(self) -> DataLoader[Batch]:
        """Give validation batches, in order."""
        return self._loader("validation")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Give test batches, in order."""
        return self._loader("test")

    def _loader(self, split: str, sampler: Sampler[int] | None = None) -> DataLoader[Batch]:
        self.setup()
        size = self.batch_size if split == "train" else 4 * self.batch_size
        workers: dict[str, Any] = {"num_workers": self.num_workers, "collate_fn": _unchanged}
        return DataLoader(self._splits[split], batch_size=size, sampler=sampler, **workers)


def _unchanged(batch: Any) -> Any:
    return batch


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
_MOST_WORKERS = 1024  # each is a process
_CHANNELS = {"digits": (1,), "planted": (1,), "mnist": (1,), "fashion_mnist": (1,), "cifar10": (3,), "folder": (1, 3)}
_LOADERS: dict[str, Callable[[ImageData], tuple[Images, Images]]] = {
    "digits": _digits,
    "planted": _planted,
    "mnist": _published,
    "fashion_mnist": _published,
    "cifar10": _published,
    "folder": _folder,
}
