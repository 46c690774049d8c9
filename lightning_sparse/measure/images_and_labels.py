"""Images and labels as two tensors, taken from a pair of tensors or from a loader of batches."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_sparse.anatomy.isolation import fork_random_states
from lightning_sparse.errors import SparsityError, check_count
from lightning_sparse.measure.checks import check_shapes

Data = tuple[Tensor, Tensor] | Iterable[Any]
"""``(images, labels)`` of shapes (n, C, H, W) and (n,), or a loader whose batches start with such a pair.

Texts are integers (n, length) in place of images.
"""


def images_and_labels(data: Data, most: int | None = None, *, name: str = "data") -> tuple[Tensor, Tensor]:
    """Return images (n, C, H, W) and labels (n,), reading no more batches than needed; the caller checks their values.

    Reading a loader changes no global random state, nor that of a DataLoader's own generator: one that shuffles gives the
    same images at every call, and a training that is using it gets the batches it would have got.

    Args:
        data: ``(images, labels)``, or an iterable of batches ``(images, labels, ...)``.
        most: keep only the first so many images; None keeps all.
        name: of the argument, for the message if it is something else.

    Raises:
        SparsityError: for anything else, for batches of another form or of different sizes, and if there is no image.

    Example:
        >>> loader = [(torch.rand(4, 1, 2, 2), torch.zeros(4, dtype=torch.long)) for _ in range(3)]
        >>> images, labels = images_and_labels(loader, most=10)
        >>> images.shape, labels.shape
        (torch.Size([10, 1, 2, 2]), torch.Size([10]))
    """
    if most is not None:
        check_count("most", most, write="1000, or None for all images")
    if _is_pair(data):
        images, labels = data
        check_shapes(images, labels)
        return images[:most], labels[:most]
    if (
        not isinstance(data, Iterable)
        or isinstance(data, Tensor | np.ndarray | str | bytes | Mapping)
        or _is_arrays(data)
    ):
        raise SparsityError(f"{name} is {_described(data)}, not images and labels: write {_written(data, name)}")
    parts: list[tuple[Tensor, Tensor]] = []
    count = 0
    with read_apart(data) as source:
        for batch in source:
            pair = tuple(islice(batch, 2)) if isinstance(batch, tuple | list) else batch
            if not _is_pair(pair):
                raise SparsityError(
                    f"a batch of {name} is {_described(batch)}, not (images, labels): {_pairs_of(batch, name)}"
                )
            if pair[0].dim() == 3 and pair[1].dim() == 0:
                raise SparsityError(
                    f"{name} gives one image at a time, of shape {tuple(pair[0].shape)}: write {_loader_of(name)}"
                )
            check_shapes(*pair)
            if parts and pair[0].shape[1:] != parts[0][0].shape[1:]:
                raise SparsityError(
                    f"{name} holds images of shapes {tuple(parts[0][0].shape[1:])} and {tuple(pair[0].shape[1:])}: give all "
                    "of one size"
                )
            parts.append(pair)
            count += len(pair[1])
            if most is not None and count >= most:
                break
    if not parts:
        raise SparsityError(
            f"{name} holds no batch: give a loader with at least one (a generator can be read only once)"
        )
    images, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    return images[:most], labels[:most]


def _described(value: object) -> str:
    if isinstance(value, Mapping):
        return f"a dict with keys {', '.join(map(repr, value)) or 'none'}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {', '.join(type(part).__name__ for part in value[:3]) or 'nothing'}"
    return f"a {type(value).__name__}"


def _written(data: object, name: str) -> str:
    """What to write in place of ``data``."""
    if isinstance(data, Mapping):
        return "({}, {})".format(*(f"{name}[{key}]" for key in _keys(data)))
    if isinstance(data, Dataset):
        return _loader_of(name)
    return _TENSORS if _is_arrays(data) else "(images, labels), two tensors, or a loader of such batches"


def _pairs_of(batch: object, name: str) -> str:
    """What to give in place of a loader of such batches."""
    if isinstance(batch, Mapping):
        pairs = "(({}, {}) for batch in {})".format(*(f"batch[{key}]" for key in _keys(batch)), name)
    elif _is_arrays(batch):
        pairs = f"({_TENSORS} for images, labels in {name})"
    elif isinstance(batch, Tensor | tuple | list):
        return "let its data set give a label with each image"
    else:
        pairs = f"((batch.image, batch.label) for batch in {name})"
    return f"give a generator of such pairs, write {pairs}"


_TENSORS = "(torch.as_tensor(images), torch.as_tensor(labels))"


def _loader_of(name: str) -> str:
    return f"torch.utils.data.DataLoader({name}, batch_size=256)"


def _keys(found: Mapping[Any, Any]) -> list[str]:
    """The keys of the images and the labels in a dict, as far as they can be told."""
    tensors = {key: value.dim() for key, value in found.items() if isinstance(value, Tensor)}
    fit = [[key for key, dimensions in tensors.items() if dimensions == wanted] for wanted in (4, 1)]
    return [repr(keys[0]) if len(keys) == 1 else "..." for keys in fit]


@contextmanager
def read_apart(data: Iterable[Any]) -> Iterator[Iterable[Any]]:
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


def _is_arrays(value: Any) -> bool:
    """Whether it is a pair of which one is an array or a list of numbers in place of a tensor."""
    if not (isinstance(value, tuple | list) and len(value) == 2) or _is_pair(value):
        return False
    return any(isinstance(part, np.ndarray) for part in value) or isinstance(value[0], Tensor)
