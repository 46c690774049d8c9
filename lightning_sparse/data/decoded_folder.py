"""Images of a folder, decoded once: as bytes in memory, and in a file beside the folder for later launches."""

from __future__ import annotations

import hashlib
import math
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError

import PIL
import torch
from torch import Tensor

from lightning_sparse.data.image_file import check_image, read_pixels
from lightning_sparse.engine.checkpoints import check_checksums, read_checkpoint
from lightning_sparse.errors import SparsityError
from lightning_sparse.extras import need

HIDDEN = ".lightning_sparse"  # in the root of an image folder, which leaves out what is hidden
_SHARE = 0.25  # of the memory there is
_LIMITS = [Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]  # cgroups 2 and 1


def fits_in_memory(images: int, shape: Sequence[int]) -> bool:
    """Whether so many images of (channels, height, width) take at most a quarter of the memory there is, as bytes.

    Example:
        >>> fits_in_memory(60_000, (3, 32, 32)), fits_in_memory(10**9, (3, 224, 224))
        (True, False)
    """
    return images * math.prod(shape) <= _SHARE * _memory()


def _memory() -> int:
    """Bytes of the machine, or of the container if it may take less."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 2**34]
    for limit in _LIMITS:
        with suppress(OSError, ValueError):  # there is no such file, or it says "max"
            sizes.append(int(limit.read_text()))
    return min(sizes)


def decoded(root: Path, split: str, paths: Sequence[str], shape: Sequence[int]) -> Tensor:
    """Return images (n, channels, height, width) as bytes, or floats in [0, 255] where a file has more than 8 bits.

    They are kept in ``root/.lightning_sparse``, and taken from there as long as every file has the name, the size and the
    time of change that it had, and the libraries that decode are the same. Where nothing can be written, they are decoded at
    every launch. A file of ours that is damaged is made again; two processes at once each make a whole one.

    Raises:
        SparsityError: naming the image, if one cannot be read rightly.
    """
    kept = root / HIDDEN / f"{split}-{'x'.join(map(str, shape))}.pt"
    signature = _signature(root, paths, shape)
    pixels = _read(kept, signature)
    if pixels is None:
        pixels = _decode(paths, shape)
        _keep(kept, signature, pixels)
    return pixels


def _signature(root: Path, paths: Sequence[str], shape: Sequence[int]) -> str:
    """What the pixels depend on, in short."""
    versions = PIL.__version__, need("torchvision").__version__
    found = hashlib.sha256(repr((versions, tuple(shape))).encode())
    for path in paths:
        if not os.path.isfile(path):
            check_image(path, shape)  # which says what it is instead
        seen = os.stat(path)
        found.update(f"{os.path.relpath(path, root)}\0{seen.st_size}\0{seen.st_mtime_ns}\n".encode(errors="replace"))
    return found.hexdigest()


def _decode(paths: Sequence[str], shape: Sequence[int]) -> Tensor:
    pixels = torch.empty(len(paths), *shape, dtype=torch.uint8)
    for place, path in enumerate(paths):
        read = read_pixels(path, shape)
        if read.is_floating_point():
            pixels = pixels.float()
        pixels[place] = read
    return pixels


def _read(kept: Path, signature: str) -> Tensor | None:
    try:
        content = read_checkpoint(kept, mmap=True)  # memory that processes share
        if content.get("signature") != signature:
            return None
        check_checksums(kept)
    except (SparsityError, UnpicklingError, OSError):
        return None
    pixels = content.get("pixels")
    return pixels if isinstance(pixels, Tensor) else None


def _keep(kept: Path, signature: str, pixels: Tensor) -> None:
    part = kept.with_name(f"{kept.name}.{uuid.uuid4().hex}.part")
    try:
        kept.parent.mkdir(exist_ok=True)
        torch.save({"signature": signature, "pixels": pixels}, part)
        os.replace(part, kept)
    except (OSError, RuntimeError):  # no permission, or a full disk
        with suppress(OSError):
            part.unlink(missing_ok=True)
