"""Data sets that give a whole batch at once, a random order for each epoch, and stratified splits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from lightning_sparse.errors import SparsityError
from lightning_sparse.extras import need

Batch = tuple[Tensor, Tensor]


class EpochShuffle(Sampler[int]):
    """A random order that depends on seed and epoch alone: a resumed run gets the order it would have had.

    Example:
        >>> sampler = EpochShuffle(4, seed=0)
        >>> first = list(sampler); sampler.set_epoch(1); second = list(sampler); sampler.set_epoch(0)
        >>> first == list(sampler), first == second
        (True, False)
    """

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.epoch = length, seed, 0
        self._start = (0, 0)
        self._weights: Tensor | None = None
        self._ordered = False

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; Lightning calls it at the start of every epoch."""
        self.epoch = epoch

    def start_at(self, place: int, epoch: int) -> None:
        """Leave out the first ``place`` indices of one epoch, which an earlier run has trained on."""
        self._start = (place, epoch)

    def steer(self, weights: Tensor | None, *, ordered: bool = False) -> None:
        """Draw images in proportion to ``weights`` (length,), as many in all as before, from the next epoch on.

        An image is drawn as often as its share of the weights says, and what is left of a whole number is settled by chance
        (systematic sampling): with equal weights each is drawn once. With ``ordered`` each is drawn once, the largest weights
        first. None undoes it.
        """
        self._weights, self._ordered = weights, ordered

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.length, generator=generator)
        if self._weights is not None and self._ordered:
            order = order[self._weights[order].argsort(descending=True, stable=True)]
        elif self._weights is not None:
            ends = self._weights[order].double().cumsum(0)
            ends = ends * (self.length / ends[-1])
            ends[-1] = self.length
            offset = torch.rand((), generator=generator, dtype=torch.float64)
            counts = (ends + offset).floor().diff(prepend=torch.zeros(1, dtype=torch.float64)).long()
            drawn = order.repeat_interleave(counts)
            order = drawn[torch.randperm(self.length, generator=generator)]
        place, epoch = self._start
        return iter(order[place if epoch == self.epoch else 0 :].tolist())

    def __len__(self) -> int:
        return self.length


class Batched(Dataset[Batch]):
    """A data set that gives a whole batch of inputs and labels at once."""

    labels: Tensor
    truth: Mapping[str, Tensor] = MappingProxyType({})
    """Masks (n, height, width) of the pixels that are known to matter, by name; empty if they are unknown."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return the batch that a DataLoader asks for, by indexing once instead of once for each image."""
        return self[indices]

    def subset(self, indices: Tensor) -> Batched:
        """Keep only some of them."""
        raise NotImplementedError


class Images(Batched):
    """Floats in [0, 1], shape (n, channels, height, width)."""

    def subset(self, indices: Tensor) -> Images:
        """Keep only some images."""
        raise NotImplementedError


class InMemory(Images):
    """Images held as one tensor, scaled to [0, 1] a batch at a time."""

    def __init__(
        self, pixels: Tensor, labels: Tensor, largest: float, truth: Mapping[str, Tensor] | None = None
    ) -> None:
        self.pixels, self.labels, self.largest = pixels, labels, largest
        self.truth = truth or {}
        # A tensor: a GPU would multiply by one over a number, which is another float than a CPU's.
        self._largest = torch.tensor(largest, device=pixels.device)

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        chosen = indices_on(indices, self.pixels.device)
        return self.pixels[chosen].float() / self._largest, self.labels[chosen]

    def subset(self, indices: Tensor) -> InMemory:
        """Keep only some images."""
        truth = {name: mask[indices] for name, mask in self.truth.items()}
        return InMemory(self.pixels[indices], self.labels[indices], self.largest, truth)


class OnDisk(Images):
    """Images in files, each read when it is needed, by a function that gives a tensor (channels, height, width)."""

    def __init__(self, files: Sequence[str], labels: Tensor, read: Callable[[str], Tensor]) -> None:
        self.files, self.labels, self.read = files, labels, read

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        return torch.stack([self.read(self.files[index]) for index in indices]), self.labels[torch.as_tensor(indices)]

    def subset(self, indices: Tensor) -> OnDisk:
        """Keep only some images."""
        return OnDisk([self.files[index] for index in indices.tolist()], self.labels[indices], self.read)


def indices_on(indices: Sequence[int], device: torch.device) -> Tensor:
    """The indices as a tensor on a device, without waiting for what a GPU still computes."""
    chosen = torch.as_tensor(indices)
    return chosen.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else chosen


def stratified_split(labels: Tensor, size: float, seed: int, what: str = "images") -> tuple[Tensor, Tensor]:
    """Return two sorted, disjoint, stratified index tensors; the second holds ``size`` images (a share, or an int: a count).

    Raises:
        SparsityError: if a class is too small to be split.
    """
    split = need("sklearn.model_selection").train_test_split
    n, (present, counts) = len(labels), torch.unique(labels, return_counts=True)
    chosen, classes = size if isinstance(size, int) else math.ceil(size * n), len(present)
    if int(counts.min()) < 2:
        alone = int(present[counts.argmin()])
        raise SparsityError(f"class {alone} has a single one of {n} {what}, and cannot be split: give it at least 2")
    if min(chosen, n - chosen) < classes:
        raise SparsityError(
            f"{n} {what} of {classes} classes cannot be split into {chosen} and {n - chosen}: ask for {classes} to "
            f"{n - classes}, or for all {n}"
        )
    rest, chosen = split(torch.arange(n), test_size=size, random_state=seed, stratify=labels)
    return rest.sort().values, chosen.sort().values
