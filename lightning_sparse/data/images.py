"""Image data in [0, 1] with fixed, disjoint splits: the bundled digits, and torchvision's data sets from a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from lightning_sparse.data.datasets import Batch, EpochShuffle, Images, InMemory, OnDisk, stratified_split
from lightning_sparse.errors import SparsityError, check_choice, check_share
from lightning_sparse.extras import need


class ImageData(LightningDataModule):
    """One image classification data set, as a Lightning data module.

    It gives images as floats in [0, 1], shape (n, channels, height, width): normalisation belongs to the model, so that an
    attack's eps is in units of pixels. The test split is the data set's own where it has one; validation is cut from the
    training split, stratified, by ``split_seed``. The order of training depends on ``shuffle_seed`` and the epoch alone.

    Args:
        name: ``"digits"`` (scikit-learn's, bundled), ``"planted"`` (the same in larger images, see
            :mod:`lightning_sparse.data.planted_digits`), ``"mnist"``, ``"fashion_mnist"``, ``"cifar10"`` or ``"folder"``
            (``root/train/<class>/*`` and ``root/test/<class>/*``).
        shape: (channels, height, width) of an image; for ``"folder"``, what images are resized and cropped to.
        classes: number of classes.
        mean: mean of each channel, for a model that normalises.
        std: standard deviation of each channel, likewise.
        shortcut: for ``"planted"``, the share of the training images that carry a shortcut, in [0, 1].
        root: folder of the files; not read for digits and planted.
        download: whether torchvision may fetch what is missing in ``root``.
        batch_size: images per training batch.
        validation: share of the training split kept for validation, in (0, 1).
        split_seed: seed of the splits.
        shuffle_seed: seed of the training order.
        num_workers: worker processes of each loader; images held in memory need none.

    Raises:
        SparsityError: if a name is unknown, the folder does not exist, or the data have another shape or more classes.

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
        if not 0.0 < check_share("validation", validation) < 1.0:
            raise SparsityError(f"validation={validation} leaves an empty split: write a share such as 0.1")
        self.shortcut = check_share("shortcut", shortcut)
        if shortcut and name != "planted":
            raise SparsityError(f"shortcut={shortcut!r} is only for planted, not for {name}: leave it out")
        self.root = None if root is None else Path(root)
        found = self.root is not None and (self.root.is_dir() or (download and name != "folder"))
        if not found and name not in _BUNDLED:
            raise SparsityError(
                f"data folder root={str(root)!r} does not exist: write data.root=/path/to/the/folder that holds {name}"
                + ("" if name == "folder" else ", or data.download=true to fetch it there")
            )
        self.shape, self.classes = tuple(shape), classes
        self.mean, self.std = list(mean), list(std)
        self.download, self.batch_size, self.validation = download, batch_size, validation
        self.split_seed, self.shuffle_seed, self.num_workers = split_seed, shuffle_seed, num_workers
        self._splits: dict[str, Images] = {}

    def setup(self, stage: str = "fit") -> None:
        """Load the images and cut the splits, once."""
        if self._splits:
            return
        train, test = _LOADERS[self.kind](self)
        for split in (train, test):
            shape, classes = tuple(split[[0]][0].shape[1:]), int(split.labels.max()) + 1
            if shape != self.shape or classes > self.classes:
                raise SparsityError(
                    f"{self.kind} holds images of shape {shape} in {classes} classes, not shape={self.shape} in "
                    f"classes={self.classes}: correct data.shape and data.classes"
                )
        kept, held_out = stratified_split(train.labels, self.validation, self.split_seed)
        self._splits = {"train": train.subset(kept), "validation": train.subset(held_out), "test": test}

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
            SparsityError: if ``most`` is too small to hold every class.
        """
        self.setup()
        images = self._splits[name]
        if most is None or most >= len(images):
            return list(range(len(images)))
        if most < self.classes:
            raise SparsityError(
                f"{most} images cannot hold all {self.classes} classes: ask for at least {self.classes}"
            )
        places: list[int] = stratified_split(images.labels, most, self.split_seed)[1].tolist()
        return places

    def truth(self, name: str, most: int | None = None) -> dict[str, Tensor] | None:
        """Return which pixels are known to matter in the images of :meth:`split`, in the same order.

        Masks (n, height, width), booleans, by name: see :class:`~lightning_sparse.data.Planted`. None if they are unknown.
        """
        places = self.sample(name, most)
        truth = self._splits[name].truth
        return {mask: pixels[places] for mask, pixels in truth.items()} or None

    def train_dataloader(self) -> DataLoader[Batch]:
        """Give shuffled batches; the order depends on ``shuffle_seed`` and the epoch."""
        images = self._splits["train"]
        return self._loader("train", sampler=EpochShuffle(len(images), self.shuffle_seed))

    def val_dataloader(self) -> DataLoader[Batch]:
        """Give validation batches, in order."""
        return self._loader("validation")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Give test batches, in order."""
        return self._loader("test")

    def _loader(self, split: str, sampler: Sampler[int] | None = None) -> DataLoader[Batch]:
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


def _torchvision(data: ImageData) -> tuple[Images, Images]:
    datasets = need("torchvision.datasets")
    source = {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST, "cifar10": datasets.CIFAR10}[data.kind]
    splits = []
    for train in (True, False):
        try:
            files = source(root=data.root, train=train, download=data.download)
        except RuntimeError as error:
            raise SparsityError(
                f"root={str(data.root)!r} holds no {data.kind} in torchvision's layout: write data.root=/path/to/the/folder "
                "that torchvision downloaded to, or data.download=true to fetch it there"
            ) from error
        pixels = torch.as_tensor(files.data)  # (n, h, w) or (n, h, w, c), bytes
        pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
        splits.append(InMemory(pixels, torch.as_tensor(files.targets), 255.0))
    return splits[0], splits[1]


def _folder(data: ImageData) -> tuple[Images, Images]:
    datasets, v2 = need("torchvision.datasets"), need("torchvision.transforms.v2")
    channels, height, width = data.shape
    steps = [v2.Grayscale()] if channels == 1 else []
    steps += [v2.Resize(max(height, width)), v2.CenterCrop((height, width)), v2.ToImage()]
    transform = v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True)])
    splits: list[OnDisk] = []
    for name in ("train", "test"):
        path = Path(str(data.root)) / name
        if not path.is_dir():
            raise SparsityError(
                f"{str(path)!r} does not exist: put images in root/train/<class>/ and root/test/<class>/"
            )
        folder = datasets.ImageFolder(path, transform)
        if splits and folder.classes != splits[0].folder.classes:
            raise SparsityError(
                f"root/test holds the classes {', '.join(folder.classes)}, root/train {', '.join(splits[0].folder.classes)}: "
                "give both the same folders, because labels are numbers in their order"
            )
        splits.append(OnDisk(folder, torch.arange(len(folder))))
    return splits[0], splits[1]


_BUNDLED = ("digits", "planted")
_LOADERS: dict[str, Callable[[ImageData], tuple[Images, Images]]] = {
    "digits": _digits,
    "planted": _planted,
    "mnist": _torchvision,
    "fashion_mnist": _torchvision,
    "cifar10": _torchvision,
    "folder": _folder,
}
