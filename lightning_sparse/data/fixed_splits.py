"""What all data of ours are: fixed, disjoint splits that give whole batches, and training in an order of its own."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from lightning_sparse.data.checks import as_integer, check_validation
from lightning_sparse.data.datasets import Batch, Batched, EpochShuffle, stratified_split
from lightning_sparse.data.label_noise import noisy_labels
from lightning_sparse.data.on_device import fits_on, on_device
from lightning_sparse.errors import SparsityError, check_choice, check_count, check_seed, check_share

_MOST_WORKERS = 1024  # each is a process


class FixedSplits(LightningDataModule):
    """A data set with fixed splits, as a Lightning data module; :class:`ImageData` and :class:`TextData` say what is in it.

    The test split is the data set's own where it has one; validation is cut from the training split, stratified, by
    ``split_seed``. The order of training depends on ``shuffle_seed`` and the epoch alone.

    Args:
        classes: number of classes, at least 2; each needs images in every split.
        label_noise: share of the training labels that are drawn anew by ``split_seed``, in [0, 1].
        most: how many images to train on, a stratified sample by ``split_seed``; None is all.
        batch_size: images per training batch.
        validation: share of the training split kept for validation, in (0, 1).
        split_seed: seed of the splits, 0 to 2**32 - 1; None is 0.
        shuffle_seed: seed of the training order, likewise.
        num_workers: worker processes of each loader; what is held in memory needs none, and with none a GPU holds it.
    """

    inputs: ClassVar[Literal["pixels", "tokens"]] = "pixels"
    """What a model gets: images (n, channels, height, width) in [0, 1], or tokens (n, length), integers."""
    what: ClassVar[str] = "images"
    """What messages call them."""

    def __init__(
        self,
        *,
        classes: int,
        label_noise: float,
        most: int | None,
        batch_size: int,
        validation: float,
        split_seed: int,
        shuffle_seed: int,
        num_workers: int,
    ) -> None:
        super().__init__()
        self.classes = check_count("classes", as_integer(classes), 2)
        if not 0.0 < check_share("validation", validation) < 1.0:
            raise SparsityError(f"validation={validation} leaves an empty split: write a share such as 0.1")
        self.validation = validation
        self.label_noise = check_share("label_noise", label_noise)
        self.most = None if most is None else check_count(self.what, as_integer(most), self.classes)
        self.batch_size = check_count("batch_size", as_integer(batch_size), write=128)
        self.split_seed = check_seed(as_integer(split_seed), "split_seed")
        self.shuffle_seed = check_seed(as_integer(shuffle_seed), "shuffle_seed")
        self.num_workers = check_count("num_workers", num_workers, 0, most=_MOST_WORKERS)
        self._splits: dict[str, Batched] = {}
        self._there: dict[str, Batched] = {}
        self._wrong = torch.empty(0, dtype=torch.bool)

    def setup(self, stage: str = "fit") -> None:
        """Read the data and cut the splits, once."""
        raise NotImplementedError

    def cut(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cut the indices of the training split by their labels (n,): those to train on, and those for validation."""
        check_validation(self.validation, len(labels), self.classes, self.what)
        kept, held_out = stratified_split(labels, self.validation, self.split_seed, self.what)
        if self.most is not None and self.most < len(kept):
            kept = kept[stratified_split(labels[kept], self.most, self.split_seed, self.what)[1]]
        return kept, held_out

    def hold(self, train: Batched, validation: Batched, test: Batched) -> None:
        """Take these splits, and plant wrong labels in the first."""
        self._splits = {"train": train, "validation": validation, "test": test}
        labels = noisy_labels(train.labels, self.label_noise, self.classes, self.split_seed)
        self._wrong, train.labels = labels != train.labels, labels

    def split(self, name: str, most: int | None = None) -> Batch:
        """Return images, or texts, and labels of ``"train"``, ``"validation"`` or ``"test"`` as two tensors.

        Args:
            name: the split.
            most: the largest number of them: a stratified sample by ``split_seed``, which is the same for every model.
        """
        places = self.sample(name, most)
        return self._splits[name][places]

    def sample(self, name: str, most: int | None = None) -> list[int]:
        """Return the indices of the images that :meth:`split` takes, without reading any.

        Raises:
            SparsityError: if there is no such split, or ``most`` is no number of images that holds every class.
        """
        self.setup()
        held = self._splits[check_choice("split", name, self._splits)]
        if most is None:
            return list(range(len(held)))
        if isinstance(most, bool) or not isinstance(most, int) or most < self.classes:
            raise SparsityError(
                f"{most!r} {self.what} cannot hold all {self.classes} classes: ask for at least {self.classes}, in whole "
                f"numbers, or for all {len(held)}"
            )
        if most >= len(held):
            return list(range(len(held)))
        places: list[int] = stratified_split(held.labels, most, self.split_seed, self.what)[1].tolist()
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

    def teardown(self, stage: str) -> None:
        """Give back what the GPU holds."""
        self._there = {}

    def _loader(self, split: str, sampler: Sampler[int] | None = None) -> DataLoader[Batch]:
        self.setup()
        size = self.batch_size if split == "train" else 4 * self.batch_size
        workers: dict[str, Any] = {"num_workers": self.num_workers, "collate_fn": _unchanged}
        return DataLoader(self._on_its_device(split), batch_size=size, sampler=sampler, **workers)

    def _on_its_device(self, split: str) -> Batched:
        """On a GPU, what fits is held there."""
        held = self._splits[split]
        if self.trainer is None or self.num_workers or not fits_on(held, self.trainer.strategy.root_device):
            return held
        if split not in self._there:
            self._there[split] = on_device(held, self.trainer.strategy.root_device)
        return self._there[split]


def _unchanged(batch: Any) -> Any:
    return batch
