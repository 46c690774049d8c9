"""Images and labels as two tensors, taken from a pair of tensors or from a loader of batches."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_sparse.anatomy.isolation import fork_random_states
from lightning_sparse.errors import SparsityError, check_count

Data = tuple[Tensor, Tensor] | Iterable[Any]
"""``(images, labels)`` of shapes (n, C, H, W) and (n,), or a loader whose batches start with such a pair."""


def images_and_labels(data: Data, most: int | None = None) -> tuple[Tensor, Tensor]:
    """Return images (n, C, H, W) and labels (n,), reading no more batches than needed; the caller checks their values.

    Reading a loader changes no global random state, nor that of a DataLoader's own generator: one that shuffles gives the
    same images at every call, and a training that is using it gets the batches it would have got.

    Args:
        data: ``(images, labels)``, or an iterable of batches ``(images, labels, ...)``.
        most: keep only the first so many images; None keeps all.

    Raises:
        SparsityError: for anything else, for batches of another form, and if there is no image.

    Example:
        >>> loader = [(torch.rand(4, 1, 2, 2), torch.zeros(4, dtype=torch.long)) for _ in range(3)]
        >>> images, labels = images_and_labels(loader, most=10)
        >>> images.shape, labels.shape
        (torch.Size([10, 1, 2, 2]), torch.Size([10]))
    """
    if most is not None:
        check_count("most", most, write="1000, or None for all images")
    if _is_pair(data) and data[0].dim() == 4:  # type: ignore[index]
        images, labels = data
        return images[:most], labels[:most]
    if isinstance(data, Tensor) or not isinstance(data, Iterable):
        raise SparsityError(
            f"data is a {type(data).__name__}, not images and labels: write (images, labels), or a loader of such batches"
        )
    parts: list[tuple[Tensor, Tensor]] = []
    count = 0
    with _apart(data) as source:
        for batch in source:
            pair = tuple(islice(batch, 2)) if isinstance(batch, tuple | list) else batch
            if not _is_pair(pair):
                raise SparsityError(
                    f"a batch of the loader is a {type(batch).__name__}, not (images, labels): give a generator of such "
                    "pairs, as in ((batch['image'], batch['label']) for batch in loader)"
                )
            parts.append(pair)
            count += len(pair[1])
            if most is not None and count >= most:
                break
    if not parts:
        raise SparsityError("data holds no batch: give a loader with at least one (a generator can be read only once)")
    images, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    return images[:most], labels[:most]


@contextmanager
def _apart(data: Iterable[Any]) -> Iterator[Iterable[Any]]:
    """The same batches, read without an effect on the loader, its workers or any random state."""
    generators = set[torch.Generator]()
    if isinstance(data, DataLoader):
        owners = (data, data.sampler, data.batch_sampler, getattr(data.batch_sampler, "sampler", None))
        found = [getattr(owner, "generator", None) for owner in owners]
        generators = {generator for generator in found if isinstance(generator, torch.Generator)}
        data = copy.copy(data)
        vars(data)["_iterator"] = None  # persistent workers are the original's, and may be in mid-epoch
    states = [(generator, generator.get_state()) for generator in generators]
    try:
        with fork_random_states(0):
            yield data
    finally:
        for generator, state in states:
            generator.set_state(state)


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(part, Tensor) for part in value)
