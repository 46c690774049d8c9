"""One image file, read as it is: bit depth, palette, transparency and orientation; what cannot be read rightly is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from lightning_sparse.errors import SparsityError
from lightning_sparse.extras import need

_END_OF_JPEG = b"\xff\xd9"


def read_image(path: str, shape: Sequence[int]) -> Tensor:
    """Read, resize and crop an image to floats in [0, 1] of ``shape``: (channels, height, width), with 1 or 3 channels.

    An image is turned as its EXIF orientation says. Transparent pixels are drawn on white. Grey levels of more than 8 bits
    are kept: 0 is black, and the largest number of so many bits is white. A file of several pictures, integers of 32 bits
    and floats outside of [0, 1] are refused, because nothing says which picture is meant, or what is white.

    Raises:
        SparsityError: naming the file, if it is no image, damaged, or cannot be read rightly.
    """
    return read_pixels(path, shape).to(torch.float32).div(255)


def read_pixels(path: str, shape: Sequence[int]) -> Tensor:
    """As :func:`read_image`, but bytes, or floats in [0, 255] of an image of more than 8 bits."""
    v2 = need("torchvision.transforms.v2.functional")
    channels, height, width = shape
    with _opened(path) as image:
        read = _pixels(image)
        if channels == 1 and read.mode == "RGB":
            read = read.convert("L")
        read = v2.center_crop(v2.resize(read, [max(height, width)]), [height, width])
        pixels: Tensor = v2.pil_to_tensor(read)
    return pixels.expand(channels, -1, -1)


def check_image(path: str, shape: Sequence[int]) -> None:
    """Raise the SparsityError of :func:`read_image`; what is whole by its checksums (PNG) or end (JPEG) is not decoded."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise SparsityError(f"{path!r} is a pipe or a device, which could be read for ever: remove it")
    with _opened(path) as image:
        _check_kind(image)
        if _is_whole(image):
            return
    read_image(path, shape)


def _is_whole(image: Any) -> bool:
    """Whether an opened file is whole, as far as this can be seen without decoding it."""
    if image.format == "PNG":
        try:
            image.verify()  # by the checksums in the file
        except Exception:
            return False
        return True
    if image.format in ("JPEG", "MPO"):
        image.fp.seek(-len(_END_OF_JPEG), 2)
        return bool(image.fp.read() == _END_OF_JPEG)
    return False


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    try:
        with Image.open(path) as image:
            yield image
    except Exception as error:  # the decoders of Pillow raise errors of many types
        raise SparsityError(f"{path!r} {_why(path, error)}") from error


def _why(path: str, error: Exception) -> str:
    if isinstance(error, SparsityError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        with open(path, "rb") as file:
            start = file.read(12)
        found = f"is no image, it starts with {start!r}" if start else "is empty, 0 bytes"
    elif isinstance(error, Image.DecompressionBombError):
        return f"has more pixels than Pillow reads ({error}): make the picture smaller, or remove it"
    elif isinstance(error, PermissionError):
        return f"cannot be read ({error.strerror}): change its permissions"
    elif isinstance(error, OSError) and error.strerror:
        found = f"cannot be read ({error.strerror})"
    else:
        found = f"is damaged or cut off ({error})"
    return f"{found}: replace the file, or remove it"


def _check_kind(image: Any) -> None:
    """Raise a SparsityError for what is more than one picture, or has no known white."""
    # A photo in MPO has its preview, or its other eye, behind it.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise SparsityError(f"holds {image.n_frames} pictures: save each as a file of its own")
    deep = image.mode in ("I", "F") or image.mode.startswith("I;")
    inverted = image.format == "TIFF" and image.tag_v2.get(262) == 0
    # Pillow reads 16 bits of a PNG or PPM as "I" too, depending on its version.
    if (image.mode == "I" and image.format not in ("PNG", "PPM")) or (
        deep and (inverted or "transparency" in image.info)
    ):
        kind = (
            "where 0 is white" if inverted else "with transparency" if image.mode != "I" else "of 32 bits or with signs"
        )
        raise SparsityError(f"holds numbers {kind}, which cannot be read as grey levels: save it with 8 or 16 bits")


def _pixels(image: Any) -> Any:
    """Return an image of mode "RGB", or "F" with white at 255 if its grey levels have more than 8 bits."""
    _check_kind(image)
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _deep(image)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        drawn = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB")
    return image.convert("RGB")


def _deep(image: Any) -> Any:
    values = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        white = 1.0
    else:
        bits = image.tag_v2.get(258, (16,))[0] if image.format == "TIFF" else 16
        white = 2.0**bits - 1
    # not "> white", which is false for NaN
    if not (values.min() >= 0 and values.max() <= white):
        raise SparsityError(
            f"holds numbers from {values.min():g} to {values.max():g}, where black is 0 and white is {white:g}: "
            "save it with 8 or 16 bits"
        )
    return Image.fromarray((values * (255 / white)).astype(np.float32))
