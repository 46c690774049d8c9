"""A weight as a decoder gets it: which connections live, and the symbols of their values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_sparse.compress.codecs import as_matrix
from lightning_sparse.compress.hashing import hashed
from lightning_sparse.compress.levels import Levels
from lightning_sparse.errors import SparsityError

LARGEST = 65504
"""Of the numbers that float16 holds."""

Bools = npt.NDArray[np.bool_]
Symbols = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class CodedWeight:
    """One weight; what it decodes to is the weight itself, to the bit, if it is at its levels or in 16 bits.

    Attributes:
        shape: of the weight.
        alive: (rows, columns); dead connections are zero, and have no symbol.
        symbols: of each living connection, row by row: the number of its level, or the 16 bits of its value.
        levels: None where values are kept in 16 bits.
        half: the format of such: ``"float16"``, or ``"bfloat16"`` where values are too large or too small for it.
        seed: of hashed weights, whose symbols follow from it, and count the levels and then their negatives; else None.
        turned: whether the weight has its outputs along dimension 1, as that of transformers' ``Conv1D``.
    """

    shape: tuple[int, ...]
    alive: Bools
    symbols: Symbols
    levels: Levels | None = None
    half: str = "float16"
    seed: int | None = None
    turned: bool = False

    def decode(self) -> Tensor:
        """The weight, float32."""
        matrix = np.zeros(self.alive.shape, dtype=np.float32)
        if self.levels is None:
            matrix[self.alive] = from_half(self.symbols, self.half)
        else:
            entries = self.levels.entries.cpu().numpy()
            if self.seed is not None:
                entries = np.concatenate([entries, -entries], axis=1)
            group = np.nonzero(self.alive)[0] if len(entries) > 1 else 0
            matrix[self.alive] = entries[group, self.symbols]
        return torch.from_numpy(matrix.T if self.turned else matrix).reshape(self.shape)


def code_weight(weight: Tensor, alive: Tensor, levels: Levels | None = None, turned: bool = False) -> CodedWeight:
    """Code a weight by its nearest levels, or in 16 bits.

    Args:
        weight: any shape, its outputs along dimension 0.
        alive: which connections live, bool, of the same shape.
        levels: of the weight as a matrix; None keeps 16 bits a value.
        turned: its outputs are along dimension 1 instead.

    Example:
        >>> weight = torch.tensor([[0.0, 0.1, 0.5]])
        >>> code_weight(weight, weight != 0).decode()
        tensor([[0.0000, 0.1000, 0.5000]])
    """
    matrix, lives = (as_matrix(part.mT if turned else part) for part in (weight, alive))
    if levels is None:
        symbols, half = to_half(matrix[lives])
        return CodedWeight(tuple(weight.shape), lives, symbols, None, half, turned=turned)
    numbers = levels.to(torch.device("cpu")).nearest(torch.from_numpy(matrix)).numpy()
    return CodedWeight(tuple(weight.shape), lives, numbers[lives].astype(np.uint16), levels, turned=turned)


def code_hashed(name: str, alive: Tensor, levels: Levels, seed: int, turned: bool = False) -> CodedWeight:
    """Code a weight whose values were given out by :func:`~lightning_sparse.compress.hashing.hashed`.

    Args:
        name: of the weight in its network.
        alive: which connections live, bool, of the shape of the weight.
        levels: the entries, in their order.
        seed: of the hash.
        turned: its outputs are along dimension 1.
    """
    numbers = hashed(name, alive.numel(), levels.count, seed).view(alive.shape)
    lives = as_matrix(alive.mT if turned else alive)
    symbols = (numbers.mT if turned else numbers).reshape(lives.shape).numpy()
    return CodedWeight(tuple(alive.shape), lives, symbols[lives].astype(np.uint16), levels, seed=seed, turned=turned)


def to_half(values: npt.NDArray[np.float32]) -> tuple[Symbols, str]:
    """Values in 16 bits: as float16, or as bfloat16 where they are too large or too small for that.

    Raises:
        SparsityError: if a value is not finite.

    Example:
        >>> to_half(np.float32([1.0]))[0].tolist(), to_half(np.float32([1e9]))[1]
        ([15360], 'bfloat16')
    """
    if not np.isfinite(values).all():
        raise SparsityError(
            "model holds values that are not finite: train it again, with a lower learning rate perhaps"
        )
    brain = torch.from_numpy(values).bfloat16()
    if np.abs(values).max(initial=0.0) <= LARGEST:
        halves = values.astype(np.float16)
        if np.square(halves - values).sum() <= np.square(brain.float().numpy() - values).sum():
            return halves.view(np.uint16), "float16"
    return brain.view(torch.int16).numpy().view(np.uint16), "bfloat16"


def from_half(symbols: Symbols, half: str) -> npt.NDArray[np.float32]:
    """Undo :func:`to_half`."""
    if half == "float16":
        return symbols.view(np.float16).astype(np.float32)
    found: npt.NDArray[np.float32] = (
        torch.from_numpy(symbols.view(np.int16).copy()).view(torch.bfloat16).float().numpy()
    )
    return found
