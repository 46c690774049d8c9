"""What image data and their description have to be before anything trains on them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_sparse.data.datasets import Images
from lightning_sparse.errors import SparsityError, check_count

_LARGEST_SIDE = 16_384  # pixels; what is meant for a network is far smaller
_LEAST_STD = 1e-6  # below what 16 bits tell apart; dividing by it leaves nothing of an image


def check_shape(kind: str, shape: Sequence[int], channels: Sequence[int]) -> tuple[int, int, int]:
    """Return ``shape`` as three integers if it is one that a data set of this kind can have, else raise a SparsityError.

    Example:
        >>> check_shape("digits", [3, 8, 8], (1,))
        Traceback (most recent call last):
        lightning_sparse.SparsityError: shape=[3, 8, 8] has 3 channels, digits has 1: write shape=[1,8,8], or in a command ...
    """
    sizes = _numbers("shape", shape, "[1,28,28]")
    if len(sizes) != 3:
        raise SparsityError(f"shape={shape!r} is not channels, height and width: {_write('shape', '[1,28,28]')}")
    found, height, width = (
        check_count(f"shape={shape!r}: {name}", size, most=_LARGEST_SIDE, write=write)
        for name, size, write in zip(("channels", "height", "width"), sizes, (channels[0], 28, 28), strict=True)
    )
    if found not in channels:
        takes = " or ".join(str(number) for number in channels)
        raise SparsityError(
            f"shape={shape!r} has {found} channels, {kind} has {takes}: "
            + _write("shape", f"[{channels[-1]},{height},{width}]")
        )
    return found, height, width


def check_statistics(mean: Sequence[float], std: Sequence[float], channels: int) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel, or one for all, as lists, if pixels in [0, 1] can have them.

    Raises:
        SparsityError: if a mean is not in [0, 1], a deviation not in [1e-6, 1], or there are not as many as channels.

    Example:
        >>> check_statistics([0.3], [0], 1)
        Traceback (most recent call last):
        lightning_sparse.SparsityError: std=[0] is not in [1e-06, 1], as of pixels in [0, 1]: write std=[0.25], or ...
    """
    checked = []
    for name, values, example, least in (("mean", mean, 0.5, 0), ("std", std, 0.25, _LEAST_STD)):
        right = f"[{','.join([str(example)] * channels)}]"
        numbers = _numbers(name, values, right)
        if len(numbers) not in (1, channels):
            raise SparsityError(
                f"{name}={values!r} has {len(numbers)} numbers for {channels} channels: {_write(name, right)}"
            )
        if any(isinstance(number, bool) or not isinstance(number, int | float) for number in numbers):
            raise SparsityError(f"{name}={values!r} is not a list of numbers: {_write(name, right)}")
        for number in numbers:
            if not least <= number <= 1:
                of_bytes = all(1 < n <= 255 for n in numbers)
                hint = f"[{','.join(f'{n / 255:.4g}' for n in numbers)}]" if of_bytes else right
                raise SparsityError(
                    f"{name}={values!r} is not in [{least:g}, 1], as of pixels in [0, 1]: {_write(name, hint)}"
                )
        checked.append(numbers)
    return checked[0], checked[1]


def _numbers(name: str, values: Any, right: str) -> list[Any]:
    """Return a list, a tuple, a tensor or an array as a list."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise SparsityError(f"{name}={values!r} is not a list: {_write(name, right)}")
    return [value.tolist() if hasattr(value, "tolist") else value for value in values]


def as_integer(value: Any) -> Any:
    """Return an integer of NumPy, such as ``labels.max() + 1``, as Python's; anything else as it is."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else value


def _write(argument: str, value: object) -> str:
    return f"write {argument}={value}, or in a command data.{argument}={value}"


def check_root(kind: str, root: str | Path | None, download: bool, *, bundled: bool = False) -> Path | None:
    """Return the folder of a data set's files, ``~`` resolved, if it is there or torchvision may make it; None if bundled."""
    if bundled:
        if not (root is None or isinstance(root, str | Path)):
            raise SparsityError(
                f"root={root!r} is not a path: leave it out, the images of {kind} come with the library"
            )
        return None
    folder = f"write data.root=/path/to/the/folder that holds {'train/ and test/' if kind == 'folder' else kind}"
    if root is not None and not (isinstance(root, str | Path) and str(root)):
        raise SparsityError(f"root={root!r} is not a path: {folder}")
    path = None if root is None else Path(os.path.expanduser(root))
    try:
        is_there, is_folder = path is not None and path.exists(), path is not None and path.is_dir()
    except OSError as error:
        raise SparsityError(f"root={str(root)!r} cannot be read ({error.strerror}): {folder}") from error
    if is_there and not is_folder:
        raise SparsityError(f"root={str(root)!r} is a file: unpack it, and {folder}")
    fetched = download and kind != "folder"
    if path is None or not (is_folder or fetched):
        raise SparsityError(
            f"data folder root={str(root)!r} does not exist: {folder}"
            + ("" if kind == "folder" else ", or data.download=true to fetch it there")
        )
    return path


def check_images(which: str, images: Images, shape: tuple[int, ...]) -> None:
    """Raise a SparsityError if a split has no images, another shape, or one value in all of its pixels."""
    if len(images) == 0:
        raise SparsityError(f"{which} holds no images: add some to its files")
    found = tuple(images[[0]][0].shape[1:])
    if found != shape:
        raise SparsityError(
            f"{which} holds images of shape {found}, not shape={shape}: "
            + _write("shape", f"[{','.join(map(str, found))}]")
        )
    _check_varied(which, images)


def check_labels(kind: str, train: Tensor, test: Tensor, classes: int) -> None:
    """Raise a SparsityError if the labels of either split are not 0 to ``classes - 1``, each at least once."""
    present, tested = torch.unique(train).tolist(), torch.unique(test).tolist()
    if present != list(range(len(present))):
        missing = min(set(range(present[-1])) - set(present))
        raise SparsityError(
            f"the training labels of {kind} go from {present[0]} to {present[-1]}, but none is {missing}: number the classes "
            "from 0 without gaps, or replace the file of labels if it is broken"
        )
    if len(present) != classes:
        advice = _write("classes", len(present)) if len(present) > 1 else "add images of another class"
        raise SparsityError(f"{kind} has training images of {len(present)} classes, not classes={classes}: {advice}")
    if tested != present:
        differ = ", ".join(map(str, sorted(set(present) ^ set(tested))[:5]))
        raise SparsityError(
            f"the training and the test labels of {kind} differ: only one of them has {differ}; give both the same classes"
        )


def _check_varied(which: str, images: Images) -> None:
    """Raise a SparsityError if all pixels of all images are equal; reads images only until two pixels differ."""
    first = images[[0]][0].flatten()[0]
    for start in range(0, len(images), 16):
        pixels = images[list(range(start, min(start + 16, len(images))))][0]
        if bool((pixels != first).any()):
            return
    raise SparsityError(
        f"all {len(images)} images of {which} are of one colour, {float(first):g} in [0, 1]: there is nothing to learn from; "
        "look at the files (what is transparent is drawn on white)"
    )


def check_validation(validation: float, images: int, classes: int, what: str = "images") -> None:
    """Raise a SparsityError if a share of the training images is not enough for an image of each class on either side."""
    kept = math.ceil(validation * images)
    if images >= 2 * classes and min(kept, images - kept) < classes:
        least, most = math.ceil(1000 * classes / images) / 1000, math.floor(1000 * (images - classes) / images) / 1000
        write = least if kept < classes else most
        raise SparsityError(
            f"validation={validation!r} of {images} {what} leaves {kept} for validation and {images - kept} for training, "
            f"which cannot hold all {classes} classes: {_write('validation', f'{write:g}')}"
        )
