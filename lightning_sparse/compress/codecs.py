"""Sparse weights in real formats; each can be decoded again, bit for bit."""

from __future__ import annotations

import lzma
import warnings
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int32]


def as_matrix(tensor: Tensor) -> npt.NDArray[Any]:
    """Return a weight as a float32 matrix, or a mask as a boolean one, with a row for each output; a vector is one row."""
    kind = torch.bool if tensor.dtype == torch.bool else torch.float32
    rows = tensor.shape[0] if tensor.dim() > 1 else 1
    return tensor.detach().to("cpu", kind).reshape(rows, -1).numpy()


def to_bitmap(weight: Floats, alive: Bools) -> tuple[Bytes, Floats]:
    """Store a layer as one bit for each connection, and the living values in order."""
    return np.packbits(alive), weight[alive]


def from_bitmap(bits: Bytes, values: Floats, shape: tuple[int, int]) -> Floats:
    """Undo :func:`to_bitmap`."""
    return _filled(np.unpackbits(bits, count=shape[0] * shape[1]).astype(bool).reshape(shape), values)


def to_csr(weight: Floats, alive: Bools) -> tuple[Indices, Indices, Floats]:
    """Store a layer as compressed sparse rows: where each row ends, the columns of the living, their values."""
    ends = np.concatenate([[0], alive.sum(axis=1).cumsum()]).astype(np.int32)
    return ends, (np.flatnonzero(alive) % alive.shape[1]).astype(np.int32), weight[alive]


def from_csr(ends: Indices, columns: Indices, values: Floats, shape: tuple[int, int]) -> Floats:
    """Undo :func:`to_csr`."""
    alive = np.zeros(shape, dtype=bool)
    alive[np.repeat(np.arange(shape[0]), np.diff(ends)), columns] = True
    return _filled(alive, values)


def torch_csr_bytes(weight: Floats, alive: Bools) -> int:
    """Count the bytes of a layer in ``torch.sparse_csr`` by default, with 64-bit indices."""
    ends, columns, values = (torch.from_numpy(part) for part in to_csr(weight, alive))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        matrix = torch.sparse_csr_tensor(ends.long(), columns.long(), values, weight.shape, check_invariants=False)
    return sum(part.nbytes for part in (matrix.crow_indices(), matrix.col_indices(), matrix.values()))


def to_entropy(layers: Sequence[tuple[Floats, Bools]]) -> bytes:
    """Compress the masks and the living values of all layers, without loss, into one string of bytes.

    A layer's mask is one bit for each connection or the gaps between the living in bytes (255: the gap continues),
    whichever is shorter. All masks go through lzma, which comes near their entropy. The values go through zlib, in four
    planes of their first to fourth bytes, because only signs and exponents are predictable.
    """
    header, parts = np.zeros((len(layers), 2), dtype="<i4"), []
    for row, (_, alive) in zip(header, layers, strict=True):
        places = np.flatnonzero(alive)
        gaps = np.diff(places, prepend=-1) - 1
        steps = np.full(int((gaps // 255 + 1).sum()), 255, dtype=np.uint8)
        steps[(gaps // 255 + 1).cumsum() - 1] = gaps % 255
        bits = np.packbits(alive)
        row[:] = len(places), len(steps) if len(steps) < len(bits) else -1
        parts.append((steps if len(steps) < len(bits) else bits).tobytes())
    values = np.concatenate([weight[alive] for weight, alive in layers]).astype("<f4")
    planes = values.view(np.uint8).reshape(-1, 4).T.tobytes()
    return lzma.compress(header.tobytes() + b"".join(parts)) + zlib.compress(planes)


def from_entropy(content: bytes, shapes: Sequence[tuple[int, int]]) -> list[Floats]:
    """Undo :func:`to_entropy`, given the shapes of the layers."""
    opener = lzma.LZMADecompressor()
    masks = opener.decompress(content)
    planes = np.frombuffer(zlib.decompress(opener.unused_data), dtype=np.uint8).reshape(4, -1)
    values = np.ascontiguousarray(planes.T).view("<f4").ravel()
    header, at, used = np.frombuffer(masks, "<i4", 2 * len(shapes)).reshape(-1, 2), 8 * len(shapes), 0
    found = []
    for (living, steps), shape in zip(header.tolist(), shapes, strict=True):
        size = shape[0] * shape[1]
        length = steps if steps >= 0 else -(-size // 8)
        part = np.frombuffer(masks, np.uint8, length, at)
        if steps >= 0:
            alive = np.zeros(size, dtype=bool)
            # Each byte skips as many connections as its value; after one below 255 comes a living connection.
            alive[((part.astype(np.int64) + (part < 255)).cumsum() - 1)[part < 255]] = True
        else:
            alive = np.unpackbits(part, count=size).astype(bool)
        found.append(_filled(alive.reshape(shape), values[used : used + living]))
        at, used = at + length, used + living
    return found


def _filled(alive: Bools, values: Floats) -> Floats:
    weight = np.zeros(alive.shape, dtype=np.float32)
    weight[alive] = values
    return weight
