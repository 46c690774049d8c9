"""The packed file itself: a header, strings of bytes, and a checksum; no pickle, so that reading one runs nothing."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from lightning_sparse import __version__
from lightning_sparse.errors import SparsityError
from lightning_sparse.results.files import write_whole

FORMAT = 1
"""Raised whenever an older version could not read a file."""

CODES = ("exact", "bfloat16", *(f"int{bits}" for bits in range(8, 1, -1)))
"""How numbers may be stored: as they are, rounded to bfloat16, or to 2^bits levels."""

_MAGIC = b"\x89lspack\n"  # not text, and broken by whatever changes the ends of lines
_FIXED = struct.Struct("<8sB32sI")  # magic, format, sha256 of all but the first and itself, bytes of the header
_HEADER_AT_MOST = 2**26


@dataclass(frozen=True)
class Part:
    """One sparse weight, or all other tensors of one type.

    Attributes:
        names: of the tensors, in the order of their values.
        shapes: of each.
        dtype: of all, such as ``"float32"``.
        coded: one of :data:`CODES`.
        sparse: whether it is one sparse weight.
        living: how many numbers are stored; the others are zero.
        mask: where they are, encoded; empty if none or all are stored.
        values: encoded.
    """

    names: list[str]
    shapes: list[list[int]]
    dtype: str
    coded: str
    sparse: bool
    living: int
    mask: bytes = field(repr=False)
    values: bytes = field(repr=False)

    @property
    def size(self) -> int:
        """How many numbers it stands for."""
        return sum(map(prod, self.shapes))


@dataclass(frozen=True)
class Packed:
    """What a file holds.

    Attributes:
        parts: everything, each tensor once.
        same: other names of tensors, and the name that has the values.
        check: crc32 of the values that the parts stand for.
        library: version of this library that wrote it.
        bytes: of the file.
    """

    parts: list[Part]
    same: dict[str, str]
    check: int
    library: str = __version__
    bytes: int = 0

    def tensors(self) -> dict[str, tuple[list[int], str]]:
        """Shape and type of every tensor, by all of its names."""
        found = {
            name: (shape, part.dtype)
            for part in self.parts
            for name, shape in zip(part.names, part.shapes, strict=True)
        }
        return found | {name: found[owner] for name, owner in self.same.items()}

    def dense_bytes(self, itemsize: int) -> int:
        """Bytes of all tensors stored dense, with ``itemsize`` of them for each floating-point number."""
        return sum(part.size * (itemsize if "float" in part.dtype else _width(part.dtype)) for part in self.parts)


def _width(dtype: str) -> int:
    return 1 if dtype == "bool" else int("".join(filter(str.isdigit, dtype)) or 8) // 8


def check_path(path: object) -> Path:
    """Return ``path`` as one if it can be that of a file, else raise a SparsityError."""
    if not isinstance(path, str | Path) or not str(path).strip() or Path(path).is_dir():
        raise SparsityError(f"path={path!r} is not the path of a file: write one such as 'network.packed'")
    return Path(path)


def write_packed(path: Path, packed: Packed) -> None:
    """Write a file whole or not at all."""
    parts = [
        {**{name: value for name, value in asdict(part).items() if name not in ("mask", "values")}, "bytes": lengths}
        for part in packed.parts
        for lengths in [[len(part.mask), len(part.values)]]
    ]
    plain = {"library": packed.library, "check": packed.check, "same": packed.same, "parts": parts}
    header = zlib.compress(json.dumps(plain, separators=(",", ":")).encode(), 9)
    rest = struct.pack("<I", len(header)) + header + b"".join(part.mask + part.values for part in packed.parts)
    digest = hashlib.sha256(bytes([FORMAT]) + rest).digest()
    try:
        write_whole(path, _MAGIC + bytes([FORMAT]) + digest + rest)
    except (OSError, ValueError) as error:
        raise SparsityError(f"path={str(path)!r} cannot be written to ({error}): give another one") from error


def read_packed(path: Path) -> Packed:
    """Read a file without decoding its values.

    Raises:
        SparsityError: if there is no such file, if it is of something else, of a newer format, truncated or damaged.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise SparsityError(
            f"path={str(path)!r} cannot be read ({error}): give the path of a file that save_packed wrote"
        ) from error
    if content[: len(_MAGIC)] != _MAGIC[: len(content)] or not content:
        raise SparsityError(f"path={str(path)!r} is no packed file: give one that save_packed wrote")
    if len(content) < _FIXED.size:
        raise _damaged(path, len(content))
    _, version, digest, length = _FIXED.unpack_from(content)
    if version > FORMAT:
        raise SparsityError(
            f"path={str(path)!r} has format {version}, and this version of the library reads format {FORMAT}: write "
            "pip install --upgrade lightning-sparse, or copy it again if it may be damaged"
        )
    if hashlib.sha256(content[8:9] + content[41:]).digest() != digest:
        raise _damaged(path, len(content))
    try:
        return _parsed(content, length)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, zlib.error) as error:
        raise _damaged(path, len(content)) from error


def _parsed(content: bytes, length: int) -> Packed:
    """What follows the checksum; a header that does not describe it raises one of Python's errors."""
    reader = zlib.decompressobj()
    header = json.loads(reader.decompress(content[_FIXED.size : _FIXED.size + length], _HEADER_AT_MOST))
    if not reader.eof:
        raise ValueError("the header is longer than any of ours")
    at, parts = _FIXED.size + length, []
    for plain in header["parts"]:
        of_mask, of_values = plain.pop("bytes")
        if min(of_mask, of_values) < 0:
            raise ValueError("a length below zero")
        end = at + of_mask + of_values
        part = Part(**plain, mask=content[at : at + of_mask], values=content[at + of_mask : end])
        _check(part)
        parts.append(part)
        at = end
    if at != len(content):
        raise ValueError("the parts are not as long as the file")
    names = [name for part in parts for name in part.names]
    same = dict(header["same"])
    if len({*names, *same}) < len(names) + len(same) or not {*same.values()} <= {*names}:
        raise ValueError("two tensors of one name, or a name of none")
    return Packed(parts, same, int(header["check"]), str(header["library"]), len(content))


def _check(part: Part) -> None:
    texts: list[Any] = [*part.names, part.dtype]
    sizes = [size for shape in part.shapes for size in shape]
    right = [
        0 < len(part.names) == len(part.shapes),
        part.coded in CODES,
        part.sparse in (False, len(part.names) == 1),
        all(isinstance(text, str) for text in texts),
        all(type(size) is int and size >= 0 for size in sizes),
        type(part.living) is int,
    ]
    if not all(right) or not 0 <= part.living <= part.size:
        raise ValueError("a part that cannot be")


def _damaged(path: Path, size: int) -> SparsityError:
    return SparsityError(
        f"path={str(path)!r} is truncated or damaged ({size:,} bytes, whose checksum is wrong): copy or download it again"
    )


def undecodable(path: Path, packed: Packed) -> SparsityError:
    """What is raised for a file that is whole, and whose values are not those that were written."""
    return SparsityError(
        f"path={str(path)!r} cannot be decoded: it was written by lightning-sparse {packed.library}, with another version of "
        "constriction perhaps; install the versions that wrote it, or write the file again"
    )
