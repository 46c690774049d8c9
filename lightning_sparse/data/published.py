"""MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100 and SVHN from the files that torchvision downloads; a broken file is named."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_sparse.data.datasets import InMemory
from lightning_sparse.errors import SparsityError
from lightning_sparse.extras import need

PUBLISHED = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
}
"""The data sets, and what torchvision calls each: the images are the same in any folder."""

_SILENCE = 30.0  # seconds without a byte, after which a download has failed
_FETCH = "write data.root=/path/to/the/folder that torchvision downloaded to, or data.download=true to fetch it there"
_AGAIN = "remove it, and write data.download=true to fetch it again"
_PERMISSIONS = "change its permissions"


def published(kind: str, root: Path, *, download: bool) -> tuple[InMemory, InMemory]:
    """Load the training and the test images of one of :data:`PUBLISHED`.

    Raises:
        SparsityError: naming the file, if one is missing or broken, or if there are more or fewer labels than images.
    """
    source = getattr(need("torchvision.datasets"), PUBLISHED[kind])
    if kind == "svhn":
        need("scipy.io")  # torchvision reads the files with it
    splits = []
    for train in (True, False):
        part = {"split": "train" if train else "test"} if kind == "svhn" else {"train": train}
        try:
            with _patience():
                files = source(root=root, download=download, **part)
        except Exception as error:  # what a broken file becomes in torchvision, struct, pickle and torch has many types
            try:
                found, advice = _broken_idx(source, root) if "mnist" in kind else _unknown(source, root)
            except PermissionError as refused:
                found, advice = f"{str(refused.filename)!r} cannot be read ({refused.strerror})", _PERMISSIONS
            if download and advice not in (_AGAIN, _PERMISSIONS):
                found += f", and could not be fetched ({' '.join(str(error).split())})"
                advice = f"look at the network, or copy the files of {kind} to {str(root)!r}"
            raise SparsityError(f"root={str(root)!r} holds no {kind} to read: {found or error}: {advice}") from error
        pixels, labels = _pixels(files.data, kind), torch.as_tensor(files.labels if kind == "svhn" else files.targets)
        if len(pixels) != len(labels):
            start = "train" if train else "t10k"
            names = (
                f"{start}-images-idx3-ubyte and {start}-labels-idx1-ubyte" if "mnist" in kind else f"files of {kind}"
            )
            raise SparsityError(
                f"{names} in {str(root)!r} hold {len(pixels)} images and {len(labels)} labels, so a file is cut off or of "
                f"another data set: {_AGAIN}"
            )
        splits.append(InMemory(pixels, labels, 255.0))
    return splits[0], splits[1]


def _pixels(data: Any, kind: str) -> Tensor:
    """Bytes (n, channels, height, width), of what torchvision holds without channels, with channels last or, of SVHN, so."""
    pixels = torch.as_tensor(data)
    if kind == "svhn":
        return pixels.contiguous()
    return pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()


@contextmanager
def _patience() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENCE)  # torchvision sets none, and would wait for ever
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _broken_idx(source: Any, root: Path) -> tuple[str, str]:
    """Say which file of MNIST's layout is missing or broken, and what to do."""
    mnist, raw = need("torchvision.datasets.mnist"), root / source.__name__ / "raw"
    for packed, _ in source.resources:
        path = raw / packed.removesuffix(".gz")
        if not path.is_file():
            unpack = f"unpack {packed}, which lies beside it, or " if (raw / packed).is_file() else ""
            return f"{str(path)!r} {'is a folder' if path.is_dir() else 'does not exist'}", unpack + _FETCH
        what = "images" if "images" in packed else "labels"
        try:
            (mnist.read_image_file if what == "images" else mnist.read_label_file)(path)
        except PermissionError:
            raise
        except Exception as error:
            return f"{str(path)!r} is no whole IDX file of {what} ({_start(path, error)})", _AGAIN
    # A version of torchvision from long ago kept its own copy, which is read where there is one.
    return f"{str(root / source.__name__ / 'processed')!r} holds something else", "remove this folder"


def _unknown(source: Any, root: Path) -> tuple[str, str]:
    """Say which file of CIFAR's or SVHN's layout is missing or is not the published one, and what to do."""
    utils = need("torchvision.datasets.utils")
    if hasattr(source, "split_list"):
        folder, known = root, [source.split_list[split][1:] for split in ("train", "test")]
    else:
        folder = root / source.base_folder
        known = [*source.train_list, *source.test_list, (source.meta["filename"], source.meta["md5"])]
    for name, checksum in known:
        path = folder / name
        if not path.is_file():
            return f"{str(path)!r} {'is a folder' if path.is_dir() else 'does not exist'}", _FETCH
        if not utils.check_integrity(path, checksum):
            return f"{str(path)!r} is not the published file, by its checksum ({_start(path)})", _FETCH
    return "", _FETCH


def _start(path: Path, error: Exception | None = None) -> str:
    """Show how a file starts, which tells a web page from a file that was cut off."""
    if isinstance(error, OSError):
        return str(error.strerror)
    with path.open("rb") as file:
        return f"{path.stat().st_size} bytes that start with {file.read(12)!r}"
