"""The string of bytes from which a network is decoded, written and read piece by piece, each under the name of its part."""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from lightning_sparse.compress.coded_weight import CodedWeight, Symbols, code_hashed
from lightning_sparse.compress.entropy_coder import decode_mask, decode_words, encode_mask, encode_words, turn
from lightning_sparse.compress.levels import levels_from
from lightning_sparse.errors import SparsityError
from lightning_sparse.extras import has

PARTS = ("mask", "values", "levels", "other", "structure", "header")
"""What each byte is for: which connections live; the symbols of their values; the levels of grids and codebooks; biases,
norms and buffers; ranks and widths; lengths, kinds and the checksum."""

_MAGIC = b"LSC1"
_PLAIN, _RANGE, _LZMA, _ALL, _NONE = range(5)  # how a stream is coded; of masks, every connection lives or none
# How the values of a weight are said. Shared: with the levels of an earlier weight; hashed: a seed says which has which;
# scaled: as the next number says, with levels times a power of two.
_VALUES = ("float16", "bfloat16", "ends", "end", "entries", "shared", "hashed", "scaled")
_ZERO = 128  # an exponent of 0

Piece = tuple[str, str, bytes]  # the part, the weight's name, and the bytes


class Writer:
    """Collects pieces. With ``entropy`` each stream is coded as short as can be; without, at a fixed width.

    Attributes:
        pieces: what was written, in order.
    """

    def __init__(self, entropy: bool) -> None:
        self.pieces: list[Piece] = []
        self._entropy = entropy
        self._levels: list[tuple[bytes, int]] = []

    def content(self) -> bytes:
        """Everything in order, behind a checksum."""
        rest = b"".join(piece for _, _, piece in self.pieces)
        return _MAGIC + struct.pack("<I", zlib.crc32(rest)) + rest

    def number(self, value: int, part: str = "header", name: str = "") -> None:
        """Write a whole number from 0, seven bits a byte."""
        found = bytearray()
        while value > 127:
            found.append(value & 127 | 128)
            value >>= 7
        found.append(value)
        self.pieces.append((part, name, bytes(found)))

    def stream(self, content: bytes, part: str, name: str) -> None:
        """Write bytes of any length, and how many they are."""
        self.number(len(content), name=name)
        self.pieces.append((part, name, content))

    def halves(self, symbols: Symbols, part: str, name: str) -> None:
        """Write numbers of 16 bits, whose count the decoder knows."""
        self._shortest(symbols.astype("<u2").view(np.uint8).reshape(-1, 2), part, name, turned=True)

    def weight(self, name: str, coded: CodedWeight) -> None:
        """Write one weight."""
        levels, told = coded.levels, (b"", 0)
        kind = coded.half if levels is None else levels.said
        if levels is not None:
            told = levels.numbers().astype("<f2").tobytes(), levels.exponent
            kind = "shared" if told in self._levels and len(told[0]) > 2 else kind
            kind = kind if coded.seed is None else "hashed"
            if told[1] and kind != "shared":
                self.number(_VALUES.index("scaled"), name=name)
                self.number(told[1] + _ZERO, "levels", name)
        self.number(_VALUES.index(kind), name=name)
        self._mask(name, coded.alive)
        if levels is None:
            self.halves(coded.symbols, "values", name)
            return
        if kind == "shared":
            self.number(self._levels.index(told), "levels", name)
        else:
            self._levels.append(told)
            self.number(levels.count, name=name)
            self.number(len(levels.entries), name=name)
            self.pieces.append(("levels", name, told[0]))
        if coded.seed is not None:
            self.number(coded.seed, "values", name)
        elif self._entropy:
            self._shortest(coded.symbols.astype(np.uint8)[:, None], "values", name)
        else:
            width = max(1, (levels.count - 1).bit_length())
            bits = (coded.symbols[:, None] >> np.arange(width)) & 1
            self.pieces.append(("values", name, np.packbits(bits.astype(np.uint8)).tobytes()))

    def _mask(self, name: str, alive: npt.NDArray[np.bool_]) -> None:
        if alive.all() or not alive.any():
            self.number(_ALL if alive.any() else _NONE, name=name)
            return
        bitmap = np.packbits(alive).tobytes()
        tried = {_PLAIN: bitmap}
        if self._entropy:
            tried[_LZMA] = _lzma(bitmap)
            if has("constriction"):
                tried[_RANGE] = encode_mask(alive)
        how = min(tried, key=lambda how: len(tried[how]))
        self.number(how, name=name)
        self.number(int(alive.sum()), name=name)
        self.stream(tried[how], "mask", name)

    def _shortest(self, words: npt.NDArray[np.uint8], part: str, name: str, turned: bool = False) -> None:
        """Write numbers of as many bytes each, whose count the decoder knows."""
        tried = {_PLAIN: words.tobytes()}
        if self._entropy and len(words):
            tried[_LZMA] = _lzma(words.T.tobytes())
            if has("constriction"):
                tried[_RANGE] = encode_words(turn(words) if turned else words)
        how = min(tried, key=lambda how: len(tried[how]))
        self.number(how, name=name)
        self.stream(tried[how], part, name)


class Reader:
    """Reads what a :class:`Writer` wrote, in the same order.

    Raises:
        SparsityError: if the content is not such a string, or a damaged one.
    """

    def __init__(self, content: bytes) -> None:
        content = bytes(content) if isinstance(content, bytearray | memoryview) else content
        if not isinstance(content, bytes) or content[:4] != _MAGIC:
            raise SparsityError("content is no compressed network: give what compress(...).content holds, or its file")
        if len(content) < 8 or struct.unpack_from("<I", content, 4)[0] != zlib.crc32(content[8:]):
            raise SparsityError(f"content is truncated or damaged ({len(content)} bytes): copy it again")
        self._content, self._at, self._entropy = content, 8, False
        self._levels: list[tuple[bytes, str, int, int, int]] = []

    def number(self) -> int:
        """Read a whole number."""
        value = shift = 0
        while True:
            byte = self._content[self._at]
            self._at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def set_entropy(self, entropy: bool) -> None:
        """Whether the streams that follow are as short as can be."""
        self._entropy = entropy

    def stream(self) -> bytes:
        """Read bytes."""
        return self._take(self.number())

    def raw(self, length: int) -> bytes:
        """Read so many bytes."""
        return self._take(length)

    def ended(self) -> bool:
        """Whether nothing is left."""
        return self._at == len(self._content)

    def halves(self, count: int) -> Symbols:
        """Read numbers of 16 bits."""
        return self._words(count, 2, turned=True).copy().view("<u2")[:, 0].astype(np.uint16)

    def weight(self, shape: Sequence[int], name: str, turned: bool = False) -> CodedWeight:
        """Read one weight of a known shape and name; of one that is ``turned`` the outputs are along dimension 1."""
        kind, exponent = _VALUES[self.number()], 0
        if kind == "scaled":
            exponent, kind = self.number() - _ZERO, _VALUES[self.number()]
        rows = (shape[1] if turned else shape[0]) if len(shape) > 1 else 1
        alive = self._mask((rows, int(np.prod(shape)) // rows))
        living = int(alive.sum())
        if kind in ("float16", "bfloat16"):
            return CodedWeight(tuple(shape), alive, self.halves(living), None, kind, turned=turned)
        if kind == "shared":
            told, kind, count, groups, exponent = self._levels[self.number()]
        else:
            count, groups = self.number(), self.number()
            told = self._take(2 * groups * {"ends": 2, "end": 1}.get(kind, count))
            self._levels.append((told, kind, count, groups, exponent))
        numbers = np.ldexp(np.frombuffer(told, "<f2").astype(np.float64), exponent).reshape(groups, -1)
        if kind == "hashed":
            lives = torch.from_numpy(alive.T if turned else alive).reshape(tuple(shape))
            return code_hashed(name, lives, levels_from(numbers, "entries", count), self.number(), turned)
        levels = levels_from(numbers, kind, count)
        if self._entropy:
            symbols = self._words(living, 1)[:, 0].astype(np.uint16)
        else:
            width = max(1, (count - 1).bit_length())
            packed = np.frombuffer(self._take(-(-living * width // 8)), np.uint8)
            bits = np.unpackbits(packed, count=living * width).reshape(living, width).astype(np.uint16)
            symbols = (bits << np.arange(width, dtype=np.uint16)).sum(axis=1).astype(np.uint16)
        return CodedWeight(tuple(shape), alive, symbols, levels, turned=turned)

    def _take(self, length: int) -> bytes:
        self._at += length
        return self._content[self._at - length : self._at]

    def _mask(self, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
        how = self.number()
        if how in (_ALL, _NONE):
            return np.full(shape, how == _ALL)
        living, content = self.number(), self.stream()
        if how == _RANGE:
            return decode_mask(content, shape, living)
        bitmap = lzma.decompress(content, lzma.FORMAT_RAW, filters=_FILTERS) if how == _LZMA else content
        return np.unpackbits(np.frombuffer(bitmap, np.uint8), count=shape[0] * shape[1]).astype(bool).reshape(shape)

    def _words(self, count: int, size: int, turned: bool = False) -> npt.NDArray[np.uint8]:
        how, content = self.number(), self.stream()
        if how == _RANGE:
            words = decode_words(content, count, size)
            return turn(words, -1) if turned else words
        if how == _LZMA:
            planes = np.frombuffer(lzma.decompress(content, lzma.FORMAT_RAW, filters=_FILTERS), np.uint8)
            return planes.reshape(size, count).T
        return np.frombuffer(content, np.uint8).reshape(count, size)


_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]


def _lzma(content: bytes) -> bytes:
    return lzma.compress(content, lzma.FORMAT_RAW, filters=_FILTERS)
