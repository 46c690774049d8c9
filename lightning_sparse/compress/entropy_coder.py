"""Masks and numbers as few bytes: adaptive models, and constriction's range coder, which takes what they predict.

The models learn from what has been coded so far, so no table of frequencies is stored. Measured on trained LeNet-300-100 at
sparsities of .8 to .98, masks take .80 to .92 of log2 C(N, k) bits (.99 to 1.05 of them in a ResNet-20 that was trained
briefly) and .79 to .93 of what lzma makes of them, bfloat16 values .89 to .95 of lzma's bytes, and 4-bit levels .81 to .96.
That is worth an optional library: lzma and zstd look for repeated strings, and here there are none. constriction is small
(it needs numpy alone) and exactly invertible; we add predictions.

Predictions are made of +, -, * and / of single numbers and of sums of integers, which every machine rounds alike: a
decoder whose predictions differed in a last bit would read nonsense.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_sparse.compress.code_lengths import code_bits
from lightning_sparse.extras import need

Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Symbols = npt.NDArray[np.int32]
# Takes symbols and the model that predicts them, and returns them: an encoder as given, a decoder as read. So each function
# below is written once, for both directions, and cannot fall out of step with itself.
_Code = Callable[..., Symbols]

_BLOCK = 256  # connections that are predicted at once, at least
_PRIOR = 16  # rows that the mean density counts for, in a column's
_COUNTS = np.array(sorted({0, *(math.isqrt(2**i) for i in range(126))}), dtype=np.float64)  # of a row, in classes
_UNSEEN = 16  # a symbol that was seen counts for as many that were not
# How four bits are predicted: not at all, by those that were seen, by those that were seen after the same four before.
_RAW, _ALONE, _AFTER = range(3)


def encode_mask(alive: Bools) -> bytes:
    """Encode a mask (rows, columns), predicting each connection from the density of its row and of its column above it.

    Trained masks have such a structure: inputs that say nothing die whole, and busy units live. Where rows hardly differ,
    their densities are left out, because they cost more than they tell.

    Example:
        >>> alive = np.tile(np.arange(100) < 10, (50, 1))  # the same 10 columns of 100 live in each of 50 rows
        >>> len(encode_mask(alive)), len(np.packbits(alive))
        (100, 625)
        >>> bool((decode_mask(encode_mask(alive), (50, 100), 500) == alive).all())
        True
    """
    tried = []
    for by_row in (1, 0):
        code, written = _writer()
        _mask(code, alive.astype(np.int32), int(alive.sum()), by_row)
        tried.append(written())
    return min(tried, key=len)


def decode_mask(content: bytes, shape: tuple[int, int], living: int) -> Bools:
    """Undo :func:`encode_mask`, given the shape and how many connections live."""
    alive = np.zeros(shape, dtype=np.int32)
    _mask(_reader(content), alive, living)
    return alive.astype(bool)


def encode_words(words: Bytes) -> bytes:
    """Encode n numbers of the same size, (n, bytes) with the highest byte last, four bits at a time from the highest down.

    Of floating-point numbers the exponent can be predicted, and the first bits after it from the exponent; the rest is
    stored as it is.

    Example:
        >>> words = np.random.default_rng(0).normal(size=1000).astype("<f4").view(np.uint8).reshape(-1, 4)
        >>> len(encode_words(turn(words)))  # of 4000
        3344
        >>> bool((turn(decode_words(encode_words(turn(words)), 1000, 4), -1) == words).all())
        True
    """
    code, written = _writer()
    planes = np.stack([words >> 4, words & 15], axis=-1).reshape(len(words), 2 * words.shape[1]).astype(np.int32)
    _words(code, planes[:, _from_the_top(words.shape[1])].T.copy())
    return written()


def decode_words(content: bytes, count: int, size: int) -> Bytes:
    """Undo :func:`encode_words`, given how many numbers there are, and the bytes of each."""
    planes = np.zeros((2 * size, count), dtype=np.int32)
    _words(_reader(content), planes)
    high, low = planes[::2], planes[1::2]
    words: Bytes = (high << 4 | low)[::-1].T.astype(np.uint8)
    return words


def turn(words: Bytes, by: int = 1) -> Bytes:
    """Rotate the bits of numbers (n, bytes) to the left: of floats the sign, which says nothing, comes last."""
    kind = np.dtype(f"<u{words.shape[1]}")
    bits, size = np.ascontiguousarray(words).view(kind), 8 * kind.itemsize
    by %= size
    turned: Bytes = (bits << kind.type(by) | bits >> kind.type(size - by)).view(np.uint8).reshape(words.shape)
    return turned


def _from_the_top(size: int) -> list[int]:
    return [2 * byte + half for byte in reversed(range(size)) for half in (0, 1)]


def _writer() -> tuple[_Code, Callable[[], bytes]]:
    coder = need("constriction").stream.queue.RangeEncoder()

    def code(symbols: Symbols, model: Any, *parameters: Any) -> Symbols:
        coder.encode(symbols, model, *parameters)
        return symbols

    return code, lambda: coder.get_compressed().astype("<u4").tobytes()


def _reader(content: bytes) -> _Code:
    coder = need("constriction").stream.queue.RangeDecoder(np.frombuffer(content, "<u4").astype(np.uint32))

    def code(symbols: Symbols, model: Any, *parameters: Any) -> Symbols:
        found: Symbols = coder.decode(model, *parameters) if parameters else coder.decode(model, len(symbols))
        return found

    return code


def _mask(code: _Code, alive: Symbols, living: int, by_row: int = 0) -> None:
    rows, columns = alive.shape
    models = need("constriction").stream.model
    bernoulli, mean = models.Bernoulli(perfect=False), living / alive.size
    in_row, seen = np.full(rows, columns * mean), np.zeros(columns)
    (by_row,) = code(np.array([by_row], dtype=np.int32), models.Uniform(2))
    if by_row:
        counts = np.append(_COUNTS[columns > _COUNTS], columns)
        classes = (np.searchsorted(counts, alive.sum(axis=1), side="right") - 1).astype(np.int32)
        _adaptive(code, classes, len(counts))
        # The middle of a class, except that rows without any and rows with all are just that.
        in_row = np.append((counts[:-1] + np.maximum(counts[1:] - 1, counts[:-1])) / 2, columns)[classes]
    step = max(1, _BLOCK // columns)
    for at in range(0, rows, step):
        part, row = alive[at : at + step], in_row[at : at + step, None]
        column = (seen + _PRIOR * mean) / (at + _PRIOR)
        # Odds of the row times odds of the column, by those of the mean.
        against = (columns - row) * (1 - column) * mean
        share = row * column * (1 - mean)
        likely = np.clip(share / (share + against), 2**-14, 1 - 2**-14)
        part[:] = code(part.ravel(), bernoulli, likely.ravel()).reshape(part.shape)
        seen += part.sum(axis=0)


def _words(code: _Code, planes: Symbols) -> None:
    models = need("constriction").stream.model
    before = np.zeros(planes.shape[1], dtype=np.int32)
    for plane in planes:
        (how,) = code(np.array([_cheapest(plane, before)], dtype=np.int32), models.Uniform(3))
        if how == _RAW:
            plane[:] = code(plane, models.Uniform(16))
        elif how == _ALONE:
            _adaptive(code, plane, 16)
        else:
            for value in np.unique(before):
                after = plane[before == value]
                _adaptive(code, after, 16)
                plane[before == value] = after
        before = plane


def _cheapest(plane: Symbols, before: Symbols) -> int:
    bits = {_RAW: 4.0 * len(plane), _ALONE: _learned(plane)}
    bits[_AFTER] = sum(_learned(plane[before == value]) for value in np.unique(before))
    return min(bits, key=bits.__getitem__)


def _learned(symbols: Symbols) -> float:
    """About what symbols take whose frequencies have to be learned: half the logarithm of their number for each."""
    return code_bits(symbols, 0) + len(np.unique(symbols)) * math.log2(len(symbols) + 1) / 2


def _adaptive(code: _Code, symbols: Symbols, kinds: int) -> None:
    """Code symbols in parts that grow by a quarter, each predicted by how often each kind was seen before it."""
    categorical, seen, at = need("constriction").stream.model.Categorical, np.ones(kinds), 0
    while at < len(symbols):
        part = symbols[at : at + max(16, at // 4)]
        part[:] = code(part, categorical(seen, perfect=False))
        seen += _UNSEEN * np.bincount(part, minlength=kinds)
        at += len(part)
