"""Folders of images: root/train/<class>/ and root/test/<class>/, looked through before any training."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from functools import partial
from pathlib import Path

import torch

from lightning_sparse.data.datasets import Images, InMemory, OnDisk
from lightning_sparse.data.decoded_folder import decoded, fits_in_memory
from lightning_sparse.data.image_file import check_image, read_image
from lightning_sparse.errors import SparsityError
from lightning_sparse.extras import need

_LAYOUT = "put images in root/train/<class>/ and root/test/<class>/"


def image_folder(root: Path, shape: tuple[int, ...]) -> tuple[Images, Images]:
    """Find the training and the test images of a folder, whose classes are numbered in the order of their names.

    Hidden files and folders, and files that are no images by name, are left out; a warning names them. Images that fit in
    memory are decoded once (:mod:`~lightning_sparse.data.decoded_folder`), others whenever a batch asks for them.

    Raises:
        SparsityError: if the folders are not as they should be, or naming a file that is cut off, or cannot be read rightly.
    """
    ignored: Counter[str] = Counter()
    train, test = (_classes(_split(root, name), ignored) for name in ("train", "test"))
    if ignored:
        named = ", ".join(f"{name} ({n})" if n > 1 else name for name, n in sorted(ignored.items()))
        warnings.warn(
            f"left out in {str(root)!r}, as hidden or no image by name: {named}; remove these, and this is not said again",
            stacklevel=2,
        )
    for one, other, name, beside in ((train, test, "test", "train"), (test, train, "train", "test")):
        if missing := sorted(one.keys() - other.keys()):
            raise SparsityError(
                f"{str(root / name)!r} has no class folder {', '.join(missing)}, as {beside} has: "
                "give both the same folders, because labels are numbers in their order"
            )
    for name, files in train.items():
        if len(files) < 2:
            raise SparsityError(
                f"{str(root / 'train' / name)!r} holds one image: training and validation need one each, so add some"
            )
    in_memory = fits_in_memory(sum(len(files) for found in (train, test) for files in found.values()), shape)
    splits: list[Images] = []
    for name, found in (("train", train), ("test", test)):
        paths = [path for files in found.values() for path in files]
        labels = torch.tensor([label for label, files in enumerate(found.values()) for _ in files])
        if in_memory:
            splits.append(InMemory(decoded(root, name, paths, shape), labels, 255.0))
            continue
        for path in paths:
            check_image(path, shape)
        splits.append(OnDisk(paths, labels, partial(read_image, shape=shape)))
    return splits[0], splits[1]


def _split(root: Path, name: str) -> Path:
    """Return the folder of a split, or raise a SparsityError that says what to rename or to move."""
    try:
        if (root / name).is_dir():
            return root / name
    except OSError as error:
        _unreadable(error)
    folders = [entry for entry in _sorted(root) if os.path.isdir(root / entry) and not _hidden(entry)]
    like = {"train": ("training",), "test": ("val", "valid", "validation", "testing")}[name]
    advice = _LAYOUT
    if renamed := [folder for folder in folders if folder.lower() in (name, *like)]:
        advice = f"rename {renamed[0]} to {name}"
    elif inner := [folder for folder in folders if os.path.isdir(root / folder / "train")]:
        advice = f"write data.root={root / inner[0]}"
    elif root.name in ("train", "test") and (root.parent / name).is_dir():
        advice = f"write data.root={root.parent}"
    elif folders:
        shown = ", ".join(folders[:5]) + (", ..." if len(folders) > 5 else "")
        advice = f"root holds the folders {shown}. {_LAYOUT.capitalize()}"
    raise SparsityError(f"{str(root / name)!r} does not exist: {advice}")


def _classes(split: Path, ignored: Counter[str]) -> dict[str, list[str]]:
    """Return the sorted paths of the images of each class, and count what is left out."""
    endings = need("torchvision.datasets.folder").IMG_EXTENSIONS
    found: dict[str, list[str]] = {}
    for entry in _sorted(split):
        if _hidden(entry):
            ignored[entry] += 1
        elif os.path.isdir(split / entry):
            found[entry] = _images(str(split / entry), endings, ignored)
        else:
            ignored["files outside of class folders"] += 1
    if not found:
        raise SparsityError(f"{str(split)!r} holds no class folders: {_LAYOUT}")
    for name, files in found.items():
        if not files:
            raise SparsityError(
                f"{str(split / name)!r} holds no images ({', '.join(endings)}): add some, or remove the folder"
            )
    return found


def _images(folder: str, endings: tuple[str, ...], ignored: Counter[str]) -> list[str]:
    found = []
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_unreadable):
        if os.path.islink(place) and _is_inside(os.path.dirname(place), place):
            raise SparsityError(f"{place!r} is a link to a folder that holds it: remove the link")
        ignored.update(name for name in (*folders, *names) if _hidden(name))
        folders[:] = [name for name in folders if not _hidden(name)]
        for name in names:
            if name.lower().endswith(endings) and not _hidden(name):
                found.append((place, name))
            elif not _hidden(name):
                ending = os.path.splitext(name)[1]
                ignored[f"*{ending}" if ending else "files without an ending"] += 1
    return [os.path.join(place, name) for place, name in sorted(found)]


def _sorted(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        return _unreadable(error)


def _unreadable(error: OSError) -> list[str]:
    raise SparsityError(f"{error.filename!r} cannot be read ({error.strerror}): change its permissions") from error


def _is_inside(path: str, folder: str) -> bool:
    folder = os.path.realpath(folder)
    return os.path.commonpath([os.path.realpath(path), folder]) == folder


def _hidden(name: str) -> bool:
    """What editors and systems leave behind, such as ``.ipynb_checkpoints``, ``.DS_Store`` and ``._photo.jpg``."""
    return name.startswith(".") or name == "__MACOSX"
