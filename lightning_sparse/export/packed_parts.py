"""Tensors as parts of a packed file, and back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lightning_sparse.compress.codecs import as_matrix
from lightning_sparse.compress.entropy_coder import (
    Bools,
    Bytes,
    decode_mask,
    decode_words,
    encode_mask,
    encode_words,
    turn,
)
from lightning_sparse.compress.quantise import quantise, values_of
from lightning_sparse.export.packed_file import Part


def encode_part(names: list[str], tensors: list[Tensor], coded: str, alive: Tensor | None = None) -> tuple[Part, Bytes]:
    """Encode one sparse weight and its mask, or tensors of one type; of these, what has no bit set is left out.

    Returns:
        The part, and the numbers as they will be decoded, (numbers, bytes).

    Example:
        >>> part, words = encode_part(["bias"], [torch.tensor([1.0, 0.0, -2.5])], "bfloat16")
        >>> part
        Part(names=['bias'], shapes=[[3]], dtype='float32', coded='bfloat16', sparse=False, living=2)
        >>> bool((decode_part(part, torch.float32)[0] == words).all())
        True
    """
    words, dtype = np.concatenate([words_of(tensor) for tensor in tensors]), tensors[0].dtype
    lives: Bools = np.asarray(words.any(axis=1)) if alive is None else alive.cpu().numpy().reshape(-1)
    count, mask, content = int(lives.sum()), b"", b""
    whole = np.zeros_like(words)
    if count:
        content, whole[lives] = _encode(words[lives], dtype, coded)
    if 0 < count < len(words):
        mask = encode_mask(lives.reshape(1, -1) if alive is None else as_matrix(alive))
    shapes = [list(tensor.shape) for tensor in tensors]
    return Part(names, shapes, name_of(dtype), coded, alive is not None, count, mask, content), whole


def decode_part(part: Part, dtype: torch.dtype) -> tuple[Bytes, Bools]:
    """Undo :func:`encode_part`: the numbers, (numbers, bytes), and which of them are stored."""
    lives: Bools = np.full(part.size, part.living > 0)
    if 0 < part.living < part.size:
        rows = part.shapes[0][0] if part.sparse and len(part.shapes[0]) > 1 else 1
        lives = decode_mask(part.mask, (rows, part.size // rows), part.living).reshape(-1)
    words = np.zeros((part.size, dtype.itemsize), dtype=np.uint8)
    if part.living:
        words[lives] = _decode(part, dtype)
    return words, lives


def words_of(tensor: Tensor) -> Bytes:
    """The bytes of each number of a tensor, (numbers, bytes), on the CPU."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().reshape(-1, tensor.element_size())


def tensor_of(words: Bytes, dtype: torch.dtype) -> Tensor:
    """Undo :func:`words_of`; the result has one dimension.

    Example:
        >>> tensor_of(words_of(torch.tensor([[1.5, -0.0]])), torch.float32)
        tensor([1.5000, -0.0000])
    """
    return torch.from_numpy(np.ascontiguousarray(words).reshape(-1)).view(dtype)


def name_of(dtype: torch.dtype) -> str:
    """As a file has it: ``"float32"``."""
    return str(dtype).removeprefix("torch.")


def _encode(words: Bytes, dtype: torch.dtype, coded: str) -> tuple[bytes, Bytes]:
    """The string of bytes that holds numbers, and the numbers as they will be decoded."""
    if coded == "exact":
        return encode_words(_turned(words, dtype, 1)), words
    numbers = tensor_of(words, dtype)
    if coded == "bfloat16":
        kept = numbers.bfloat16()
        return encode_words(_turned(words_of(kept), kept.dtype, 1)), words_of(kept.to(dtype))
    levels, rounded = quantise(numbers.double().numpy(), _bits(coded))
    ends = words_of(torch.stack([numbers.min(), numbers.max()])).tobytes()
    return ends + encode_words(levels.astype(np.uint8)[:, None]), words_of(torch.from_numpy(rounded).to(dtype))


def _decode(part: Part, dtype: torch.dtype) -> Bytes:
    if part.coded in ("exact", "bfloat16"):
        kept = dtype if part.coded == "exact" else torch.bfloat16
        words = _turned(decode_words(part.values, part.living, kept.itemsize), kept, -1)
        return words if kept == dtype else words_of(tensor_of(words, kept).to(dtype))
    split = 2 * dtype.itemsize
    low, high = tensor_of(np.frombuffer(part.values[:split], np.uint8).copy(), dtype).double().tolist()
    levels = decode_words(part.values[split:], part.living, 1)[:, 0].astype(np.int64)
    return words_of(torch.from_numpy(values_of(levels, low, high, _bits(part.coded))).to(dtype))


def _turned(words: Bytes, dtype: torch.dtype, by: int) -> Bytes:
    return turn(words, by) if dtype.is_floating_point and dtype.itemsize in (2, 4, 8) else words


def _bits(coded: str) -> int:
    return int(coded.removeprefix("int"))
